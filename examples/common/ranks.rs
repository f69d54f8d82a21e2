//! The processes of an `mpirun` that train one model together.

use std::{error::Error, path::Path};
use tlr_models::{
    report::{OutFolder, ReportError},
    train::{self, AnyRanks},
};

/// Environment variables that starters of MPI processes set for each of them.
const STARTED: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"];

/// The other processes of this run, if it was started as one of several.
pub(crate) fn all() -> Result<AnyRanks, Box<dyn Error>> {
    match STARTED.iter().any(|name| std::env::var_os(name).is_some()) {
        true => started(),
        false => Ok(train::alone()),
    }
}

#[cfg(feature = "mpi")]
fn started() -> Result<AnyRanks, Box<dyn Error>> {
    use tlr::parallel::{Communicator, Mpi, Ranks};
    let own: Box<dyn Communicator> = Box::new(Mpi::new()?);
    let ranks = Ranks::new(own);
    Ok(match std::env::var("TLR_TIME_OUT") {
        Ok(seconds) => ranks.time_out(std::time::Duration::try_from_secs_f64(seconds.parse()?)?),
        Err(_) => ranks,
    })
}

/// Each of them would train alone, and all of them in one folder.
#[cfg(not(feature = "mpi"))]
fn started() -> Result<AnyRanks, Box<dyn Error>> {
    Err("this program was started as one of several processes and is built for one: build it with \
         `--features mpi`"
        .into())
}

/// The folder for results, held by the first rank. The others write nothing.
#[allow(dead_code)] // A sweep claims its folder by itself.
pub(crate) fn claim(path: &Path, ranks: &AnyRanks) -> Result<OutFolder, Box<dyn Error>> {
    let claimed: Result<_, ReportError> = match ranks.is_first() {
        true => OutFolder::claim(path),
        false => Ok(OutFolder::of_another(path)),
    };
    let told = ranks.confirm(claimed.as_ref().err().map(ToString::to_string).as_deref());
    let claimed = claimed?;
    told?;
    Ok(claimed)
}
