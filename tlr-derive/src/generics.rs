//! Which type parameter is the dtype, which the device, and which are modules.

use crate::{ast::Input, valid::Errors};
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{format_ident, quote, ToTokens};
use syn::{
    parse_quote, Error, GenericArgument, GenericParam, Generics, PathArguments, PathSegment, Type,
    TypeParam, TypeParamBound, WherePredicate,
};

/// The parts that the type parameters of a struct play.
pub(crate) struct Roles<'a> {
    /// The struct's own, or one that the implementation adds: then the struct works with any.
    pub(crate) dtype: Ident,
    pub(crate) device: Ident,
    fresh: Vec<Ident>,
    /// These change with dtype and device.
    pub(crate) modules: Vec<&'a Ident>,
    /// These stay as they are.
    pub(crate) kept: Vec<&'a Ident>,
    /// Whether the struct exists for every dtype and device: not with an error in its parameters.
    pub(crate) convertible: bool,
}

/// Bounds that say nothing of how a type changes with dtype and device, but that hold only before.
const OF_MODULES: [&str; 13] = [
    "BuildModule",
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "Module",
    "ModuleMut",
    "NonMutableModule",
    "Send",
    "Sync",
    "TensorCollection",
    "TrainableLr",
    "Unpin",
];

impl<'a> Roles<'a> {
    pub(crate) fn of(input: &Input<'a>, all: &mut Errors) -> Self {
        let mut errors = Errors::default();
        let (dtype, device) = dtype_and_device(input, &mut errors);
        if let Some(dtype) = &dtype {
            errors.take(check_dtype(dtype, input.generics));
        }
        let (mut modules, mut kept) = (Vec::new(), Vec::new());
        for param in input.generics.type_params() {
            let ident = &param.ident;
            if [&dtype, &device].contains(&&Some(ident.clone())) {
                continue;
            }
            let bounds = bounds(input.generics, param);
            if !input.modules().any(|field| mentions(field.ty, ident)) {
                kept.push(ident);
            } else if bounds.is_empty() {
                modules.push(ident);
            } else {
                kept.push(ident);
                errors.take(check_bounds(ident, &bounds));
            }
        }
        let mut fresh = Vec::new();
        let mut or_fresh = |param: Option<Ident>, name: &str| {
            param.unwrap_or_else(|| {
                fresh.push(format_ident!("{name}"));
                format_ident!("{name}")
            })
        };
        let dtype = or_fresh(dtype, "__E");
        let device = or_fresh(device, "__D");
        let convertible = all.take(errors.finish()).is_some();
        Self { dtype, device, fresh, modules, kept, convertible }
    }

    /// The struct's generics, without defaults, with bounds that make `dtype` and `device` usable by
    /// all of dfdx's layers, and with those of them that the struct lacks.
    pub(crate) fn generics(&self, of: &Generics, krate: &TokenStream) -> Generics {
        let Self { dtype, device, .. } = self;
        let mut generics = of.clone();
        for param in &mut generics.params {
            match param {
                GenericParam::Type(param) => {
                    param.eq_token = None;
                    param.default = None;
                }
                GenericParam::Const(param) => {
                    param.eq_token = None;
                    param.default = None;
                }
                GenericParam::Lifetime(_) => {}
            }
        }
        generics
            .params
            .extend(self.fresh.iter().map(|ident| -> GenericParam { parse_quote!(#ident) }));
        // Not `Linear<…>: TensorCollection<E, D>` and the like for the fields: in the implementation
        // such a bound would hide dfdx's own, and with it what `To` is.
        generics.make_where_clause().predicates.extend::<[WherePredicate; 2]>([
            parse_quote! {
                #dtype: #krate::__private::dfdx::shapes::Dtype
                    + #krate::__private::num_traits::Float
                    + #krate::__private::rand_distr::uniform::SampleUniform
            },
            parse_quote!(#device: #krate::__private::dfdx::tensor_ops::Device<#dtype>),
        ]);
        generics
    }

    /// The struct with each of its parameters `replaced`.
    pub(crate) fn with_arguments(
        input: &Input<'_>,
        replaced: impl Fn(&Ident) -> TokenStream,
    ) -> TokenStream {
        let ident = input.ident;
        let arguments = input.generics.params.iter().map(|param| match param {
            GenericParam::Lifetime(param) => param.lifetime.to_token_stream(),
            GenericParam::Const(param) => param.ident.to_token_stream(),
            GenericParam::Type(param) => replaced(&param.ident),
        });
        quote!(#ident<#(#arguments),*>)
    }
}

fn dtype_and_device(input: &Input<'_>, errors: &mut Errors) -> (Option<Ident>, Option<Ident>) {
    let named = |named: &Option<Ident>, errors: &mut Errors| {
        let named = named.as_ref()?;
        let known = input.generics.type_params().any(|param| param.ident == *named);
        if !known {
            errors.push(Error::new_spanned(
                named,
                format!(
                    "`{}` has no type parameter `{named}`; dfdx converts models between dtypes and \
                     devices, so that these have to be parameters",
                    input.ident
                ),
            ));
        }
        known.then(|| named.clone())
    };
    let mut device = named(&input.attrs.device, errors);
    let mut dtype = named(&input.attrs.dtype, errors);
    if input.attrs.device.is_none() {
        let mut devices = input
            .generics
            .type_params()
            .filter(|param| !dtypes_of(input.generics, param).is_empty())
            .map(|param| &param.ident);
        device = devices.next().cloned();
        if let (Some(first), Some(second)) = (&device, devices.next()) {
            errors.push(Error::new_spanned(
                second,
                format!(
                    "`{first}` and `{second}` are both devices: say which is the model's with \
                     `#[tlr(dtype = …, device = …)]`"
                ),
            ));
        }
    }
    let param = input.generics.type_params().find(|param| Some(&param.ident) == device.as_ref());
    if let (Some(param), None) = (param, &input.attrs.dtype) {
        let all = dtypes_of(input.generics, param);
        let mut params = all.iter().filter_map(|ty| {
            input.generics.type_params().map(|param| &param.ident).find(|ident| is(ty, ident))
        });
        dtype = params.next().cloned();
        match (&dtype, params.find(|other| Some(*other) != dtype.as_ref()), all.first()) {
            (Some(first), Some(second), _) => errors.push(Error::new_spanned(
                &param.ident,
                format!(
                    "`{first}` and `{second}` are both dtypes: say which is the model's with \
                     `#[tlr(dtype = …, device = …)]`"
                ),
            )),
            (None, _, Some(fixed)) => errors.push(Error::new_spanned(
                fixed,
                "the dtype has to be a type parameter, as in `E: Dtype, D: Device<E>`; dfdx converts \
                 models from one to another",
            )),
            (None, _, None) => errors.push(Error::new_spanned(
                &input.attrs.device,
                "say which type parameter is the dtype too: `#[tlr(dtype = …, device = …)]`",
            )),
            _ => {}
        }
    }
    if let (Some(named), true) = (&input.attrs.device, dtype.is_some() && dtype == device) {
        errors
            .push(Error::new_spanned(named, "one type parameter cannot be both dtype and device"));
    }
    (dtype, device)
}

/// The `X` of each `Device<X>` and `Storage<X>` that bounds the parameter.
fn dtypes_of<'a>(generics: &'a Generics, param: &'a TypeParam) -> Vec<&'a Type> {
    bounds(generics, param)
        .into_iter()
        .filter_map(last_segment)
        .filter(|segment| segment.ident == "Device" || segment.ident == "Storage")
        .filter_map(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
                Some(GenericArgument::Type(ty)) => Some(ty),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// A parameter's bounds, wherever they stand.
fn bounds<'a>(generics: &'a Generics, param: &'a TypeParam) -> Vec<&'a TypeParamBound> {
    let clauses = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let elsewhere = clauses.filter_map(|predicate| match predicate {
        WherePredicate::Type(predicate) if is(&predicate.bounded_ty, &param.ident) => {
            Some(&predicate.bounds)
        }
        _ => None,
    });
    [&param.bounds].into_iter().chain(elsewhere).flatten().collect()
}

fn last_segment(bound: &TypeParamBound) -> Option<&PathSegment> {
    match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last(),
        _ => None,
    }
}

/// Whether the dtype has to be what dfdx's layers ask for: it is of their implementations that they
/// do so, as `To` is for any dtype.
fn check_dtype(dtype: &Ident, generics: &Generics) -> syn::Result<()> {
    let params = generics.type_params().filter(|param| param.ident == *dtype);
    let too_much = params.flat_map(|param| bounds(generics, param)).find(|bound| {
        last_segment(bound)
            .is_some_and(|segment| segment.ident == "Float" || segment.ident == "SampleUniform")
    });
    match too_much {
        Some(bound) => Err(Error::new_spanned(
            bound,
            format!(
                "dfdx converts models to any dtype, so the struct cannot ask for more than \
                 `{dtype}: Dtype`; the derives put `Float` and `SampleUniform` on their `impl`s"
            ),
        )),
        None => Ok(()),
    }
}

/// Whether a module parameter has bounds that cannot be kept. Any other bound may well be one of a
/// parameter that stays as it is.
fn check_bounds(param: &Ident, bounds: &[&TypeParamBound]) -> syn::Result<()> {
    let of_module = |bound: &&TypeParamBound| {
        matches!(bound, TypeParamBound::Lifetime(_))
            || last_segment(bound)
                .is_some_and(|segment| OF_MODULES.iter().any(|name| segment.ident == name))
    };
    match bounds.first() {
        Some(first) if bounds.iter().all(of_module) => Err(Error::new_spanned(
            first,
            format!(
                "`{param}` is a module, which becomes another type when dfdx converts the model, and \
                 that one need not have this bound: move it from the struct to the `impl`s that use it"
            ),
        )),
        _ => Ok(()),
    }
}

fn is(ty: &Type, param: &Ident) -> bool {
    matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.is_ident(param))
}

/// Whether the parameter occurs in the type. Looks at tokens, so as to see into macros.
pub(crate) fn mentions(ty: &Type, param: &Ident) -> bool {
    fn occurs(tokens: TokenStream, param: &Ident) -> bool {
        let mut after_colons = 0;
        tokens.into_iter().any(|token| {
            let colons = std::mem::take(&mut after_colons);
            match token {
                // `path::M` is another `M`.
                TokenTree::Ident(ident) => ident == *param && colons < 2,
                TokenTree::Punct(punct) => {
                    after_colons = if punct.as_char() == ':' { colons + 1 } else { 0 };
                    false
                }
                TokenTree::Group(group) => occurs(group.stream(), param),
                TokenTree::Literal(_) => false,
            }
        })
    }
    occurs(ty.to_token_stream(), param)
}
