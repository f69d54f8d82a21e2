//! The struct that a derive is used on, with its `#[tlr(…)]` attributes parsed.

use crate::{
    attr::{FieldAttrs, StructAttrs},
    errors::Errors,
};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, ToTokens};
use syn::{ext::IdentExt, spanned::Spanned, Data, DeriveInput, Generics, Index, Member, Type};

/// A struct.
pub(crate) struct Input<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) attrs: StructAttrs,
    pub(crate) fields: Vec<Field<'a>>,
}

/// A field of a struct.
pub(crate) struct Field<'a> {
    /// What follows the dot where the field is accessed: its name, or its index in a tuple struct.
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) attrs: FieldAttrs,
}

impl<'a> Input<'a> {
    /// Parses a struct. An enum or a union is an error, and counts as a struct without fields.
    pub(crate) fn parse(input: &'a DeriveInput, errors: &mut Errors) -> Self {
        let fields = match &input.data {
            Data::Struct(data) => data.fields.iter().collect(),
            Data::Enum(data) => {
                errors.push(not_a_struct(data.enum_token, "an enum"));
                Vec::new()
            }
            Data::Union(data) => {
                errors.push(not_a_struct(data.union_token, "a union"));
                Vec::new()
            }
        };
        Self {
            ident: &input.ident,
            generics: &input.generics,
            attrs: StructAttrs::parse(&input.attrs, errors),
            fields: fields
                .into_iter()
                .enumerate()
                .map(|(index, field)| Field {
                    member: match &field.ident {
                        Some(ident) => Member::Named(ident.clone()),
                        // An index has no span of its own. With the span of the type, errors in
                        // code that accesses the field point at the field.
                        None => {
                            let mut index = Index::from(index);
                            index.span = field.ty.span();
                            Member::Unnamed(index)
                        }
                    },
                    ty: &field.ty,
                    attrs: FieldAttrs::parse(&field.attrs, errors),
                })
                .collect(),
        }
    }

    /// The path by which the generated code names the crate `tlr`.
    pub(crate) fn krate(&self) -> TokenStream {
        match &self.attrs.krate {
            // Lints would check the path as code of the user's, so its tokens get the span of the
            // derive's own code. Only `$crate` keeps its span, which tells the compiler which crate
            // it stands for.
            Some(path) => path
                .to_token_stream()
                .into_iter()
                .map(|mut token| {
                    if token.to_string() != "$crate" {
                        token.set_span(token.span().resolved_at(Span::call_site()));
                    }
                    token
                })
                .collect(),
            None => quote!(::tlr),
        }
    }

    /// The fields that are modules: all that are not marked `#[tlr(skip)]`.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter().filter(|field| field.attrs.skip.is_none())
    }

    /// The fields that are optimized: the modules but those that are marked `#[tlr(untrained)]`,
    /// unless the struct as a whole is one layer.
    pub(crate) fn optimized(&self) -> impl Iterator<Item = &Field<'a>> {
        let trained = self.modules().filter(|field| field.attrs.untrained.is_none());
        trained.filter(|_| self.attrs.group.is_none())
    }

    /// The fields whose types have to implement `TrainableLr`: those that are optimized, except
    /// those that are one layer each, because they are marked `#[tlr(group)]`.
    pub(crate) fn trainable(&self) -> impl Iterator<Item = &Field<'a>> {
        self.optimized().filter(|field| field.attrs.group.is_none())
    }
}

impl Field<'_> {
    /// The field's part in the names of tensors and layers.
    pub(crate) fn name(&self) -> String {
        match &self.member {
            Member::Named(ident) => ident.unraw().to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        }
    }
}

fn not_a_struct(keyword: impl ToTokens, what: &str) -> syn::Error {
    syn::Error::new_spanned(keyword, format!("a model is a struct, not {what}"))
}
