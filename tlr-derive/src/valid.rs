//! Everything that can be wrong with a struct, found in one go.

use crate::{
    ast::{Field, Input},
    attr::StructAttrs,
    generics::Roles,
};
use syn::{DeriveInput, Error};

/// All errors so far.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn finish(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }

    pub(crate) fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }
}

/// A struct, and what its type parameters are. With an error, as good as could be made out.
pub(crate) struct Validated<'a> {
    pub(crate) input: Input<'a>,
    pub(crate) roles: Roles<'a>,
    pub(crate) error: Option<Error>,
}

pub(crate) fn validated(input: &DeriveInput) -> Validated<'_> {
    let mut errors = Errors::default();
    let input = Input::parse(input, &mut errors);
    for field in &input.fields {
        check(field, &input.attrs, &mut errors);
    }
    let roles = Roles::of(&input, &mut errors);
    Validated { input, roles, error: errors.0 }
}

fn check(field: &Field<'_>, on_struct: &StructAttrs, errors: &mut Errors) {
    let attrs = &field.attrs;
    let others = [
        ("group", attrs.group),
        ("frozen", attrs.frozen),
        ("rate", attrs.rate.as_ref().map(|rate| rate.key)),
    ];
    for (name, span) in others {
        let Some(span) = span else { continue };
        if attrs.skip.is_some() {
            errors.push(Error::new(
                span,
                format!("`{name}` is for a module, and `skip` says that this field is none"),
            ));
        } else if on_struct.group.is_some() {
            errors.push(Error::new(
                span,
                format!(
                    "`#[tlr(group)]` makes the struct one layer: `{name}` of a part means nothing"
                ),
            ));
        }
    }
    if let Some(rate) = &attrs.rate {
        if !(rate.value.is_finite() && rate.value > 0.0) {
            errors.push(Error::new_spanned(&rate.literal, "a rate must be finite and above zero"));
        }
    }
}
