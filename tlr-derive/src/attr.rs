//! What stands in `#[tlr(…)]`. Keys and values keep their spans, for the errors of `valid`.

use crate::valid::Errors;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::{
    ext::IdentExt,
    parse::{Parse, ParseStream, Parser},
    punctuated::Punctuated,
    spanned::Spanned,
    Attribute, Lit, Meta, Path, Token,
};

/// Of a struct.
#[derive(Default)]
pub(crate) struct StructAttrs {
    pub(crate) krate: Option<Path>,
    pub(crate) group: Option<Span>,
    pub(crate) dtype: Option<Ident>,
    pub(crate) device: Option<Ident>,
}

/// Of a field.
#[derive(Default)]
pub(crate) struct FieldAttrs {
    pub(crate) group: Option<Span>,
    pub(crate) frozen: Option<Span>,
    pub(crate) rate: Option<Rate>,
    pub(crate) skip: Option<Span>,
}

pub(crate) struct Rate {
    pub(crate) value: f64,
    /// Of the key.
    pub(crate) key: Span,
    pub(crate) literal: TokenStream,
}

const ON_STRUCTS: [&str; 4] = ["crate", "group", "dtype", "device"];
const ON_FIELDS: [&str; 4] = ["group", "frozen", "rate", "skip"];

impl StructAttrs {
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
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut parsed = Self::default();
        for item in items(attrs, errors) {
            let name = item.key.to_string();
            let result = match name.as_str() {
                "group" => item.flag().map(|span| parsed.group = Some(span)),
                "frozen" => item.flag().map(|span| parsed.frozen = Some(span)),
                "skip" => item.flag().map(|span| parsed.skip = Some(span)),
                "rate" => {
                    item.value("a number, as in `rate = 0.1`", number).map(|(value, literal)| {
                        parsed.rate = Some(Rate { value, key: item.key.span(), literal });
                    })
                }
                _ if ON_STRUCTS.contains(&name.as_str()) => {
                    Err(item.error(format!("`{name}` goes on the struct, not on a field")))
                }
                _ => Err(item.unknown("a field", "`group`, `frozen`, `rate = …`, `skip`")),
            };
            errors.take(result);
        }
        parsed
    }
}

/// `key` or `key = value`.
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
    fn error(&self, message: impl std::fmt::Display) -> syn::Error {
        syn::Error::new(self.key.span(), message)
    }

    fn unknown(&self, place: &str, known: &str) -> syn::Error {
        self.error(format!("unknown attribute `{}`; {place} can have {known}", self.key))
    }

    fn flag(&self) -> syn::Result<Span> {
        match &self.value {
            None => Ok(self.key.span()),
            Some(value) => Err(syn::Error::new(
                span_of(value, &self.key),
                format!("`{}` takes no value", self.key),
            )),
        }
    }

    fn value<T>(&self, what: &str, parser: impl Parser<Output = T>) -> syn::Result<T> {
        let expected = |span| syn::Error::new(span, format!("expected {what}"));
        let value = self.value.clone().ok_or_else(|| expected(self.key.span()))?;
        let span = span_of(&value, &self.key);
        parser.parse2(value).map_err(|_| expected(span))
    }
}

/// The tokens' span; the key's if there are none.
fn span_of(tokens: &TokenStream, key: &Ident) -> Span {
    if tokens.is_empty() {
        key.span()
    } else {
        tokens.span()
    }
}

/// All items of all `#[tlr(…)]`, each key once.
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

/// A number with its tokens. Whether it is one that makes sense is for `valid` to say.
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
