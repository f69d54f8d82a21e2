//! Parses the attributes `#[tlr(…)]` of structs and of fields.
//!
//! What is parsed keeps its spans, so that `valid` can point at it when it finds an error.

use crate::errors::Errors;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::{
    ext::IdentExt,
    parse::{Parse, ParseStream, Parser},
    punctuated::Punctuated,
    spanned::Spanned,
    Attribute, Lit, Meta, Path, Token,
};

/// The attributes of a struct.
#[derive(Default)]
pub(crate) struct StructAttrs {
    /// The path to the crate `tlr`, from `crate = path`.
    pub(crate) krate: Option<Path>,
    /// Where `group` stands.
    pub(crate) group: Option<Span>,
    /// The type parameter in `dtype = E`.
    pub(crate) dtype: Option<Ident>,
    /// The type parameter in `device = D`.
    pub(crate) device: Option<Ident>,
}

/// The attributes of a field.
#[derive(Default)]
pub(crate) struct FieldAttrs {
    /// Where `group` stands.
    pub(crate) group: Option<Span>,
    /// Where `fixed_rate` stands.
    pub(crate) fixed_rate: Option<Span>,
    pub(crate) rate: Option<Rate>,
    /// Where `no_decay` stands.
    pub(crate) no_decay: Option<Span>,
    /// Where `untrained` stands.
    pub(crate) untrained: Option<Span>,
    /// Where `skip` stands.
    pub(crate) skip: Option<Span>,
}

/// The attribute `rate = 0.1`.
pub(crate) struct Rate {
    pub(crate) value: f64,
    /// Where the word `rate` stands.
    pub(crate) key: Span,
    /// The tokens of the value.
    pub(crate) literal: TokenStream,
}

/// The keys that a struct can have.
const ON_STRUCTS: [&str; 4] = ["crate", "group", "dtype", "device"];
/// The keys that a field can have.
const ON_FIELDS: [&str; 6] = ["group", "fixed_rate", "rate", "no_decay", "untrained", "skip"];

impl StructAttrs {
    /// Parses those of a struct's attributes that are `#[tlr(…)]`.
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut parsed = Self::default();
        for item in items(attrs, errors) {
            let name = item.key.to_string();
            let result = match name.as_str() {
                "crate" => item
                    .value("a path, as in `crate = path::to::tlr`", Path::parse_mod_style)
                    .map(|path| parsed.krate = Some(path)),
                "group" => item.flag().map(|span| parsed.group = Some(span)),
                "dtype" => item
                    .value("a type parameter, as in `dtype = E`", Ident::parse)
                    .map(|ident| parsed.dtype = Some(ident)),
                "device" => item
                    .value("a type parameter, as in `device = D`", Ident::parse)
                    .map(|ident| parsed.device = Some(ident)),
                _ if ON_FIELDS.contains(&name.as_str()) => {
                    Err(item.error(format!("`{name}` goes on a field, not on the struct")))
                }
                _ => {
                    Err(item.unknown("a struct", "`crate = …`, `group`, `dtype = …`, `device = …`"))
                }
            };
            errors.take(result);
        }
        parsed
    }
}

impl FieldAttrs {
    /// Parses those of a field's attributes that are `#[tlr(…)]`.
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut parsed = Self::default();
        for item in items(attrs, errors) {
            let name = item.key.to_string();
            let result = match name.as_str() {
                "group" => item.flag().map(|span| parsed.group = Some(span)),
                "fixed_rate" => item.flag().map(|span| parsed.fixed_rate = Some(span)),
                "no_decay" => item.flag().map(|span| parsed.no_decay = Some(span)),
                "untrained" => item.flag().map(|span| parsed.untrained = Some(span)),
                "skip" => item.flag().map(|span| parsed.skip = Some(span)),
                "rate" => {
                    item.value("a number, as in `rate = 0.1`", number).map(|(value, literal)| {
                        parsed.rate = Some(Rate { value, key: item.key.span(), literal });
                    })
                }
                _ if ON_STRUCTS.contains(&name.as_str()) => {
                    Err(item.error(format!("`{name}` goes on the struct, not on a field")))
                }
                _ => Err(item.unknown(
                    "a field",
                    "`group`, `fixed_rate`, `rate = …`, `no_decay`, `untrained`, `skip`",
                )),
            };
            errors.take(result);
        }
        parsed
    }
}

impl FieldAttrs {
    /// Those that a walk over the tensors has to know of, by their names in `tlr`'s `Mark`, and
    /// whether they are there.
    pub(crate) fn marks(&self) -> [(&'static str, bool); 4] {
        [
            ("fixed_rate", self.fixed_rate.is_some()),
            ("rate", self.rate.is_some()),
            ("untrained", self.untrained.is_some()),
            ("no_decay", self.no_decay.is_some()),
        ]
    }
}

/// One of the items between the parentheses of `#[tlr(…)]`: `key` or `key = value`.
struct Item {
    key: Ident,
    value: Option<TokenStream>,
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = input
            .call(Ident::parse_any)
            .map_err(|error| syn::Error::new(error.span(), "expected the name of an attribute"))?;
        if input.is_empty() || input.peek(Token![,]) {
            return Ok(Self { key, value: None });
        }
        if input.parse::<Option<Token![=]>>()?.is_none() {
            return Err(input.error("expected `=` or `,`"));
        }
        let value = input.step(|cursor| {
            let mut rest = *cursor;
            let mut value = TokenStream::new();
            while let Some((token, next)) = rest.token_tree() {
                if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',') {
                    break;
                }
                value.extend([token]);
                rest = next;
            }
            Ok((value, rest))
        })?;
        Ok(Self { key, value: Some(value) })
    }
}

impl Item {
    /// An error that points at the key.
    fn error(&self, message: impl std::fmt::Display) -> syn::Error {
        syn::Error::new(self.key.span(), message)
    }

    /// The error that the key is none of those `known` in its place.
    fn unknown(&self, place: &str, known: &str) -> syn::Error {
        self.error(format!("unknown attribute `{}`; {place} can have {known}", self.key))
    }

    /// Where the key stands. It is an error if it has a value.
    fn flag(&self) -> syn::Result<Span> {
        match &self.value {
            None => Ok(self.key.span()),
            Some(value) => Err(syn::Error::new(
                span_of(value, &self.key),
                format!("`{}` takes no value", self.key),
            )),
        }
    }

    /// The value, parsed. It is an error, which says that `what` is expected, if there is no value
    /// or if it cannot be parsed.
    fn value<T>(&self, what: &str, parser: impl Parser<Output = T>) -> syn::Result<T> {
        let expected = |span| syn::Error::new(span, format!("expected {what}"));
        let value = self.value.clone().ok_or_else(|| expected(self.key.span()))?;
        let span = span_of(&value, &self.key);
        parser.parse2(value).map_err(|_| expected(span))
    }
}

/// The span of the tokens, or that of the key if there are no tokens.
fn span_of(tokens: &TokenStream, key: &Ident) -> Span {
    if tokens.is_empty() {
        key.span()
    } else {
        tokens.span()
    }
}

/// The items of all attributes `#[tlr(…)]` together. A key that occurs a second time is an error.
fn items(attrs: &[Attribute], errors: &mut Errors) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("tlr")) {
        let parsed = match &attr.meta {
            Meta::List(list) => {
                list.parse_args_with(Punctuated::<Item, Token![,]>::parse_terminated)
            }
            meta => Err(syn::Error::new_spanned(meta, "expected `#[tlr(…)]`")),
        };
        for item in errors.take(parsed).into_iter().flatten() {
            if items.iter().any(|other| other.key == item.key) {
                errors.push(item.error(format!("`{}` is here twice", item.key)));
            } else {
                items.push(item);
            }
        }
    }
    items
}

/// Parses any number, and also returns its tokens. `valid` checks that it is a possible rate.
fn number(input: ParseStream<'_>) -> syn::Result<(f64, TokenStream)> {
    let literal = input.fork().parse()?;
    let negative = input.parse::<Option<Token![-]>>()?.is_some();
    let (value, suffix) = match input.parse()? {
        Lit::Float(lit) => (lit.base10_parse::<f64>()?, lit.suffix().to_owned()),
        Lit::Int(lit) => (lit.base10_parse::<f64>()?, lit.suffix().to_owned()),
        lit => return Err(syn::Error::new_spanned(lit, "expected a number")),
    };
    if !matches!(suffix.as_str(), "" | "f64") {
        return Err(input.error("expected an `f64`"));
    }
    Ok((if negative { -value } else { value }, literal))
}
