//! The settings of a run, as run.json keeps them and --config reads them.

use super::{
    run_json::{RunJson, OF_EXAMPLES, OF_TOKENS},
    warn,
};
use clap::{parser::ValueSource, ArgAction, ArgMatches, Command, Parser};
use serde_json::{Map, Number, Value};
use std::{
    error::Error,
    ffi::OsString,
    path::{Path, PathBuf},
};
use tlr_models::train::Facts;

/// Flags that say where files go and what is shown, and not what is trained.
const FILES: [&str; 7] = ["out", "json", "quiet", "tensorboard", "checkpoint", "resume", "config"];

/// Flags that may differ when a run goes on from its checkpoint. The place of the data is one of
/// them: the data itself is compared.
const MAY_CHANGE: [&str; 9] =
    ["epochs", "device", "threads", "decoders", "beam", "show", "data", "download", "mirror"];

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All settings of a run: what the user has asked for, and the defaults.
pub(super) struct Given {
    /// The example's name.
    pub(super) program: String,
    /// The settings, by the names of their flags.
    pub(super) settings: Map<String, Value>,
    /// What a run.json says of its run's data.
    expected: Option<Expected>,
    /// The variable of the environment that says where the data is, if that is not a flag.
    pub(super) data_from: Option<String>,
}

/// The data of an earlier run.
struct Expected {
    /// The run.json.
    path: PathBuf,
    /// What its program called the data.
    data: String,
    fingerprint: String,
}

impl Given {
    /// The settings that a checkpoint has to agree with.
    pub(super) fn facts(&self) -> Facts {
        let lasting = self.settings.iter().filter(|(name, _)| !MAY_CHANGE.contains(&name.as_str()));
        lasting.fold(Facts::default(), |facts, (name, value)| {
            let flag = format!("--{name}");
            match value {
                Value::Bool(given) => facts.with_flag(&flag, *given),
                Value::String(text) => facts.with(&flag, text),
                value => facts.with(&flag, value),
            }
        })
    }

    /// Whether the data, which is called `name`, is that of --config, if there is one.
    pub(super) fn check_data(&self, name: &str, fingerprint: &str) -> Result<(), String> {
        let Some(Expected { path, data, .. }) =
            self.expected.as_ref().filter(|expected| expected.fingerprint != fingerprint)
        else {
            return Ok(());
        };
        let not = format!("the data is not that of {}", path.display());
        Err(match name == data {
            true => format!("{not}: {name} has other contents than it had"),
            false => format!("{not}: it was {data}, is {name}"),
        })
    }
}

/// The command line; what --config says stands before it, so that flags that were typed override
/// it.
pub(super) fn parse<A: Parser>(command: Command) -> Result<(A, Given), Box<dyn Error>> {
    let mut command = command.args_override_self(true);
    let program = command.get_name().to_owned();
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let mut matches = command.clone().get_matches_from(&words);
    let mut expected = None;
    if let Some(path) = matches.get_one::<PathBuf>("config").cloned() {
        let config = Config::read(&path, &command)?;
        // The flags of --config stand after the name of the program.
        words.splice(1..1, config.words.iter().cloned());
        // Where no data is named there, it was drawn. A variable that is set here changes nothing.
        command = command.mut_args(|arg| arg.env(None));
        // Other data is what was asked for, if a flag beside --config chooses it.
        let typed = |name: &&str| {
            let known = matches.ids().any(|id| id.as_str() == *name);
            known && matches.value_source(name) == Some(ValueSource::CommandLine)
        };
        if !OF_EXAMPLES.iter().chain(&OF_TOKENS).any(typed) {
            let Config { data, fingerprint, .. } = config;
            expected = Some(Expected { path, data, fingerprint });
        }
        matches = command.clone().get_matches_from(words);
    }
    let settings = settings(&command, &matches)?;
    let data = command.get_arguments().find(|arg| arg.get_id() == "data");
    let data = data.filter(|_| matches.value_source("data") == Some(ValueSource::EnvVariable));
    let data_from = data.and_then(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()));
    let args = A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((args, Given { program, settings, expected, data_from }))
}

/// All settings, whether chosen or left at their defaults.
fn settings(command: &Command, matches: &ArgMatches) -> Result<Map<String, Value>, Box<dyn Error>> {
    let mut settings = Map::new();
    for arg in command.get_arguments() {
        let Some(name) = arg.get_long().filter(|name| !FILES.contains(name)) else { continue };
        let id = arg.get_id().as_str();
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            settings.insert(name.to_owned(), matches.get_flag(id).into());
        } else if let Some(value) = matches.get_raw(id).and_then(|mut values| values.next()) {
            let value = match name {
                // Wherever the run is repeated from.
                "data" => std::path::absolute(value)?.into_os_string(),
                _ => value.to_owned(),
            };
            let value = value.into_string().map_err(|value| {
                let value = Path::new(&value).display();
                format!("--{name} {value}: a name that is no UTF-8, which run.json cannot hold")
            })?;
            settings.insert(name.to_owned(), number(&value).unwrap_or(Value::String(value)));
        }
    }
    Ok(settings)
}

/// The number that a text says, always the same for the same number: 1e3 is 1000.
fn number(text: &str) -> Option<Value> {
    let number = serde_json::from_str::<Number>(text).ok()?;
    Some(match number.as_f64().filter(|_| number.is_f64()) {
        Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => (whole as i64).into(),
        _ => number.into(),
    })
}

/// The settings in run.json that say how to train.
struct Config {
    words: Vec<OsString>,
    data: String,
    fingerprint: String,
}

impl Config {
    fn read(path: &Path, command: &Command) -> Result<Self, Box<dyn Error>> {
        let program = command.get_name();
        let RunJson { program: of, version, settings, data, fingerprint, .. } =
            RunJson::read(path)?;
        if of != program {
            return Err(format!("{} is of {of}, and not of {program}", path.display()).into());
        }
        if version != VERSION {
            let path = path.display();
            warn(format_args!(
                "warning: {path} is of version {version}, and this is {VERSION}: the result may \
                 differ"
            ));
        }
        let longs = command.get_arguments().filter_map(|arg| arg.get_long());
        let known: Vec<&str> = longs.filter(|name| !FILES.contains(name)).collect();
        if let Some(name) = settings.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{}: `{name}` is no setting of {program}", path.display()).into());
        }
        let words = settings.iter().filter_map(|(name, value)| match value {
            Value::Bool(given) => given.then(|| format!("--{name}")),
            Value::String(text) => Some(format!("--{name}={text}")),
            value => Some(format!("--{name}={value}")),
        });
        let words: Vec<OsString> = words.map(OsString::from).collect();
        // By itself first, so that what is wrong in the file is not taken for a flag that was
        // typed.
        let alone = std::iter::once(OsString::from(program)).chain(words.iter().cloned());
        command.clone().try_get_matches_from(alone).map_err(|error| {
            let why = error.to_string();
            let why = why.lines().next().unwrap_or_default();
            format!("{}: {}", path.display(), why.strip_prefix("error: ").unwrap_or(why))
        })?;
        Ok(Self { words, data, fingerprint })
    }
}
