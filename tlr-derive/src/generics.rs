//! The type parameters of a struct: which is the dtype, which is the device, and which are modules.
//!
//! Nothing here reports an error. If the struct leaves open which parameter is the dtype or the
//! device, the first that is possible is taken, and `valid` reports the error.

use crate::ast::Input;
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{format_ident, quote, ToTokens};
use syn::{
    parse_quote, GenericArgument, GenericParam, Generics, PathArguments, PathSegment, Type,
    TypeParam, TypeParamBound, WherePredicate,
};

/// What each type parameter of a struct stands for.
pub(crate) struct Roles<'a> {
    /// The dtype: one of the struct's type parameters, or one in `added`.
    pub(crate) dtype: Ident,
    /// The device: one of the struct's type parameters, or one in `added`.
    pub(crate) device: Ident,
    /// The dtype or the device, or both, if the struct has no such type parameter. It works with
    /// any, so its implementations get the parameter in addition to those of the struct.
    added: Vec<Ident>,
    /// The type parameters that are modules. Each becomes another type when the model is converted
    /// to another dtype or device.
    pub(crate) modules: Vec<&'a Ident>,
    /// All other type parameters. Each remains the same type when the model is converted.
    pub(crate) kept: Vec<&'a Ident>,
}

impl<'a> Roles<'a> {
    /// Finds out the roles of the type parameters of a struct.
    pub(crate) fn of(input: &Input<'a>) -> Self {
        let device = device_of(input);
        let dtype = dtype_of(input, device.as_ref());
        let (modules, kept) = input
            .generics
            .type_params()
            .filter(|param| ![&dtype, &device].contains(&&Some(param.ident.clone())))
            .partition::<Vec<_>, _>(|param| {
                in_module(input, &param.ident) && bounds_of(input.generics, param).is_empty()
            });
        let idents = |params: Vec<&'a TypeParam>| params.iter().map(|param| &param.ident).collect();

        let mut added = Vec::new();
        let mut or_added = |param: Option<Ident>, name: &str| {
            param.unwrap_or_else(|| {
                added.push(format_ident!("{name}"));
                format_ident!("{name}")
            })
        };
        let dtype = or_added(dtype, "__E");
        let device = or_added(device, "__D");
        Self { dtype, device, added, modules: idents(modules), kept: idents(kept) }
    }

    /// The generics of an implementation for a struct, given the generics `of` the struct.
    ///
    /// These are the struct's own without the defaults, the dtype and the device if the struct
    /// lacks them, and what all of dfdx's layers require of a dtype and a device.
    pub(crate) fn generics(&self, of: &Generics, krate: &TokenStream) -> Generics {
        let Self { dtype, device, .. } = self;
        let mut generics = of.clone();
        for param in &mut generics.params {
            match param {
                GenericParam::Type(param) => {
                    param.default = None;
                }
                GenericParam::Const(param) => {
                    param.default = None;
                }
                GenericParam::Lifetime(_) => {}
            }
        }
        generics
            .params
            .extend(self.added.iter().map(|ident| -> GenericParam { parse_quote!(#ident) }));
        // There must be no bounds on the types of the fields, such as
        // `Linear<…>: TensorCollection<E, D>`. The compiler would use such a bound in place of
        // dfdx's implementation, and would then not know which type the associated type `To` is.
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
}

/// The struct's type parameter that is the device: the one that the attribute `device` names, or
/// else the first that has a bound `Device<…>` or `Storage<…>`.
fn device_of(input: &Input<'_>) -> Option<Ident> {
    match &input.attrs.device {
        Some(named) => type_param(input.generics, named).map(|_| named.clone()),
        None => devices(input.generics).next().cloned(),
    }
}

/// The struct's type parameter that is the dtype: the one that the attribute `dtype` names, or else
/// the first that is the `E` in a bound `Device<E>` or `Storage<E>` of the device.
fn dtype_of(input: &Input<'_>, device: Option<&Ident>) -> Option<Ident> {
    match &input.attrs.dtype {
        Some(named) => type_param(input.generics, named).map(|_| named.clone()),
        None => dtypes_of(input.generics, type_param(input.generics, device?)?)
            .into_iter()
            .find_map(|ty| as_type_param(input.generics, ty))
            .cloned(),
    }
}

/// The type parameter of this name.
pub(crate) fn type_param<'a>(generics: &'a Generics, ident: &Ident) -> Option<&'a TypeParam> {
    generics.type_params().find(|param| param.ident == *ident)
}

/// The type parameter that the type is, if it is nothing more than one.
pub(crate) fn as_type_param<'a>(generics: &'a Generics, ty: &Type) -> Option<&'a Ident> {
    generics.type_params().map(|param| &param.ident).find(|ident| is_type_param(ty, ident))
}

fn is_type_param(ty: &Type, param: &Ident) -> bool {
    matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.is_ident(param))
}

/// The type parameters that have a bound `Device<…>` or `Storage<…>`.
pub(crate) fn devices(generics: &Generics) -> impl Iterator<Item = &Ident> {
    generics
        .type_params()
        .filter(|param| !dtypes_of(generics, param).is_empty())
        .map(|param| &param.ident)
}

/// The type `X` in each bound `Device<X>` or `Storage<X>` of the type parameter.
pub(crate) fn dtypes_of<'a>(generics: &'a Generics, param: &'a TypeParam) -> Vec<&'a Type> {
    bounds_of(generics, param)
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

/// The bounds of the type parameter, both those at its declaration and those in the where clause.
pub(crate) fn bounds_of<'a>(
    generics: &'a Generics,
    param: &'a TypeParam,
) -> Vec<&'a TypeParamBound> {
    let predicates = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let in_where_clause = predicates.filter_map(|predicate| match predicate {
        WherePredicate::Type(predicate) if is_type_param(&predicate.bounded_ty, &param.ident) => {
            Some(&predicate.bounds)
        }
        _ => None,
    });
    [&param.bounds].into_iter().chain(in_where_clause).flatten().collect()
}

/// The last segment of the path of a trait, as `Device<E>` in `dfdx::tensor_ops::Device<E>`.
pub(crate) fn last_segment(bound: &TypeParamBound) -> Option<&PathSegment> {
    match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last(),
        _ => None,
    }
}

/// Whether the type parameter occurs in the type of a field that is a module.
pub(crate) fn in_module(input: &Input<'_>, param: &Ident) -> bool {
    input.modules().any(|field| mentions(field.ty, param))
}

/// Whether the type parameter occurs in the type.
///
/// This looks at the tokens of the type, because a macro in it is not parsed.
pub(crate) fn mentions(ty: &Type, param: &Ident) -> bool {
    fn occurs(tokens: TokenStream, param: &Ident) -> bool {
        let mut colons = 0;
        tokens.into_iter().any(|token| {
            let colons_before = std::mem::take(&mut colons);
            match token {
                // The `M` in `path::M` is not the parameter `M`.
                TokenTree::Ident(ident) => ident == *param && colons_before < 2,
                TokenTree::Punct(punct) => {
                    colons = if punct.as_char() == ':' { colons_before + 1 } else { 0 };
                    false
                }
                TokenTree::Group(group) => occurs(group.stream(), param),
                TokenTree::Literal(_) => false,
            }
        })
    }
    occurs(ty.to_token_stream(), param)
}

/// The type of the struct, with each of its type parameters replaced by another type.
pub(crate) fn with_type_arguments(
    input: &Input<'_>,
    replacement: impl Fn(&Ident) -> TokenStream,
) -> TokenStream {
    let ident = input.ident;
    let arguments = input.generics.params.iter().map(|param| match param {
        GenericParam::Lifetime(param) => param.lifetime.to_token_stream(),
        GenericParam::Const(param) => param.ident.to_token_stream(),
        GenericParam::Type(param) => replacement(&param.ident),
    });
    quote!(#ident<#(#arguments),*>)
}
