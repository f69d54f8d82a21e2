//! The struct a derive is for.

use crate::{
    attr::{FieldAttrs, StructAttrs},
    valid::Errors,
};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, ToTokens};
use syn::{ext::IdentExt, spanned::Spanned, Data, DeriveInput, Generics, Index, Member, Type};

pub(crate) struct Input<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) attrs: StructAttrs,
    pub(crate) fields: Vec<Field<'a>>,
}

pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) attrs: FieldAttrs,
}

impl<'a> Input<'a> {
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
                        // The type's span, so that an error in its code points at the field.
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

    /// The path to `tlr`.
    pub(crate) fn krate(&self) -> TokenStream {
        match &self.attrs.krate {
            // The derive's own code for lints; but `$crate` says by its span which crate it means.
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

    /// The fields that are modules.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter().filter(|field| field.attrs.skip.is_none())
    }
}

impl Field<'_> {
    /// As tensors and layers are called.
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
