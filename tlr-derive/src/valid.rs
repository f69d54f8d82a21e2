//! Checks a struct that has been parsed, and returns all errors in it.
//!
//! `ast` and `attr` have already reported what could not be parsed.

use crate::{
    ast::{Field, Input},
    attr::StructAttrs,
    errors::Errors,
    generics::{
        as_type_param, bounds_of, devices, dtypes_of, in_module, last_segment, type_param, Roles,
    },
};
use proc_macro2::Ident;
use syn::{Error, Generics, TypeParam, TypeParamBound};

/// Traits that modules can implement whatever their dtype and device are.
///
/// A type parameter with only such bounds is likely meant to be a module.
const MODULE_TRAITS: [&str; 13] = [
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

/// Checks everything: the attributes of the fields, and the type parameters.
pub(crate) fn check(input: &Input<'_>, roles: &Roles<'_>) -> syn::Result<()> {
    let mut errors = Errors::default();
    for field in &input.fields {
        errors.take(check_field(field, &input.attrs));
    }
    errors.take(check_type_params(input, roles));
    errors.finish()
}

/// Checks that the attributes of a field make sense together, and with those of the struct.
fn check_field(field: &Field<'_>, on_struct: &StructAttrs) -> syn::Result<()> {
    let mut errors = Errors::default();
    let attrs = &field.attrs;
    let rate = attrs.rate.as_ref().map(|rate| rate.key);
    let of_rates = [("group", attrs.group), ("fixed_rate", attrs.fixed_rate), ("rate", rate)];
    let of_tensors = [("no_decay", attrs.no_decay), ("untrained", attrs.untrained)];
    for (name, span) in of_rates.into_iter().chain(of_tensors) {
        let Some(span) = span else { continue };
        let is_of_rates = of_rates.iter().any(|(of_rates, _)| *of_rates == name);
        let message = if attrs.skip.is_some() {
            format!("`{name}` is for a module, and `skip` says that this field is none")
        } else if attrs.untrained.is_some() && name != "untrained" {
            format!("`{name}` is for a field that is trained, and this one is `untrained`")
        } else if on_struct.group.is_some() && is_of_rates {
            format!("`#[tlr(group)]` makes the struct one layer: `{name}` of a part means nothing")
        } else {
            continue;
        };
        errors.push(Error::new(span, message));
    }
    if let Some(rate) = &attrs.rate
        && !(rate.value.is_finite() && rate.value > 0.0)
    {
        errors.push(Error::new_spanned(&rate.literal, "a rate must be finite and above zero"));
    }
    errors.finish()
}

/// Checks that there is one dtype and one device, and that no bound prevents dfdx from converting
/// the struct to another dtype or device.
///
/// After an error here, the struct may not even exist for another dtype and device.
pub(crate) fn check_type_params(input: &Input<'_>, roles: &Roles<'_>) -> syn::Result<()> {
    let mut errors = Errors::default();
    for named in [&input.attrs.device, &input.attrs.dtype] {
        errors.take(check_named(input, named.as_ref()));
    }
    if input.attrs.device.is_none() {
        errors.take(check_one_device(input.generics));
    }
    if let (Some(device), None) = (type_param(input.generics, &roles.device), &input.attrs.dtype) {
        errors.take(check_one_dtype(input, device));
    }
    if let (Some(named), true) = (&input.attrs.device, roles.dtype == roles.device) {
        errors
            .push(Error::new_spanned(named, "one type parameter cannot be both dtype and device"));
    }
    if let Some(dtype) = type_param(input.generics, &roles.dtype) {
        errors.take(check_dtype_bounds(input.generics, dtype));
    }
    for param in input.generics.type_params() {
        if roles.kept.contains(&&param.ident) && in_module(input, &param.ident) {
            errors.take(check_kept_bounds(input.generics, param));
        }
    }
    errors.finish()
}

/// Checks that the name in `dtype = E` or `device = D` is that of a type parameter.
fn check_named(input: &Input<'_>, named: Option<&Ident>) -> syn::Result<()> {
    match named {
        Some(named) if type_param(input.generics, named).is_none() => Err(Error::new_spanned(
            named,
            format!(
                "`{}` has no type parameter `{named}`; dfdx converts models between dtypes and \
                 devices, so that these have to be parameters",
                input.ident
            ),
        )),
        _ => Ok(()),
    }
}

/// Checks that the bounds make at most one type parameter a device.
fn check_one_device(generics: &Generics) -> syn::Result<()> {
    let mut devices = devices(generics);
    match (devices.next(), devices.next()) {
        (Some(first), Some(second)) => Err(Error::new_spanned(
            second,
            format!(
                "`{first}` and `{second}` are both devices: say which is the model's with \
                 `#[tlr(dtype = …, device = …)]`"
            ),
        )),
        _ => Ok(()),
    }
}

/// Checks that the bounds of the device make exactly one type parameter the dtype.
fn check_one_dtype(input: &Input<'_>, device: &TypeParam) -> syn::Result<()> {
    let dtypes = dtypes_of(input.generics, device);
    let mut params = dtypes.iter().filter_map(|ty| as_type_param(input.generics, ty));
    let first = params.next();
    let second = params.find(|other| Some(*other) != first);
    match (first, second, dtypes.first()) {
        (Some(first), Some(second), _) => Err(Error::new_spanned(
            &device.ident,
            format!(
                "`{first}` and `{second}` are both dtypes: say which is the model's with \
                 `#[tlr(dtype = …, device = …)]`"
            ),
        )),
        (None, _, Some(fixed)) => Err(Error::new_spanned(
            fixed,
            "the dtype has to be a type parameter, as in `E: Dtype, D: Device<E>`; dfdx converts \
             models from one to another",
        )),
        (None, _, None) => Err(Error::new_spanned(
            &input.attrs.device,
            "say which type parameter is the dtype too: `#[tlr(dtype = …, device = …)]`",
        )),
        (Some(_), None, _) => Ok(()),
    }
}

/// Checks that the struct exists for every dtype: that it does not require a dtype that is
/// `Float` or `SampleUniform`.
///
/// dfdx's layers require these, but only in their implementations.
fn check_dtype_bounds(generics: &Generics, dtype: &TypeParam) -> syn::Result<()> {
    let too_strict = bounds_of(generics, dtype).into_iter().find(|bound| {
        last_segment(bound)
            .is_some_and(|segment| segment.ident == "Float" || segment.ident == "SampleUniform")
    });
    match too_strict {
        Some(bound) => Err(Error::new_spanned(
            bound,
            format!(
                "dfdx converts models to any dtype, so the struct cannot ask for more than \
                 `{}: Dtype`; the derives put `Float` and `SampleUniform` on their `impl`s",
                dtype.ident
            ),
        )),
        None => Ok(()),
    }
}

/// Checks that a type parameter that has bounds, and so remains the same type when the model is
/// converted, is not meant to be a module.
///
/// It is taken for a module if all its bounds are lifetimes or [`MODULE_TRAITS`]. With any other
/// bound it can well be a type that remains the same.
fn check_kept_bounds(generics: &Generics, param: &TypeParam) -> syn::Result<()> {
    let can_be_of_module = |bound: &&TypeParamBound| {
        matches!(bound, TypeParamBound::Lifetime(_))
            || last_segment(bound)
                .is_some_and(|segment| MODULE_TRAITS.iter().any(|name| segment.ident == name))
    };
    let bounds = bounds_of(generics, param);
    match bounds.first() {
        Some(first) if bounds.iter().all(can_be_of_module) => Err(Error::new_spanned(
            first,
            format!(
                "`{}` is a module, which becomes another type when dfdx converts the model, and \
                 that one need not have this bound: move it from the struct to the `impl`s that \
                 use it",
                param.ident
            ),
        )),
        _ => Ok(()),
    }
}
