//! Numbers on the command line: which are refused, and in what words.

use clap::{builder::ValueParser, Arg, Command};
use std::any::TypeId;

/// Reads a whole number of at least `least`, also one as large as 1e6.
pub(crate) fn whole<T: TryFrom<u64>>(
    least: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().or_else(|| exact(text)).filter(|number| *number >= least);
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| {
            // Why a text that looks like a whole number is not one that can be taken.
            let why = match text.parse::<f64>() {
                Ok(large) if size_of::<T>() == 4 && large >= 2_f64.powi(32) => " and below 2^32",
                Ok(large) if large >= 2_f64.powi(64) => " and below 2^64",
                Ok(float) if float > 2_f64.powi(53) && text.contains(['e', 'E', '.']) => {
                    "; above 2^53 write out all digits"
                }
                _ => "",
            };
            format!("it takes a whole number of at least {least}{why}")
        })
    }
}

/// A whole number that is written as a float, such as 1e6. Above 2^53 f64 does not hold every whole
/// number, so none is taken.
fn exact(text: &str) -> Option<u64> {
    let most = 2_f64.powi(53);
    let number = text.parse::<f64>().ok()?;
    ((0.0..=most).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

/// Reads any number. Its range is checked where it is used.
fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "it takes a number, such as 0.01 or 1e-3".to_owned())
}

/// Flags that take a number take one with a sign, so that it is refused as a number and not as an
/// unknown flag. A variable of the environment that is empty counts as not set.
pub(crate) fn with_signs(command: Command) -> Command {
    command.mut_args(|arg: Arg| {
        let variable = arg.get_env().and_then(std::env::var_os);
        let arg = if variable.is_some_and(|set| set.is_empty()) { arg.env(None) } else { arg };
        let kind = arg.get_value_parser().type_id();
        if kind == TypeId::of::<f64>() {
            arg.allow_hyphen_values(true).value_parser(ValueParser::new(number))
        } else if [TypeId::of::<usize>(), TypeId::of::<u64>(), TypeId::of::<u32>()]
            .iter()
            .any(|whole| kind == *whole)
        {
            arg.allow_hyphen_values(true)
        } else {
            arg
        }
    })
}
