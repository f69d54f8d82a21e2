//! Data sets: drawn here, read from disk or downloaded.
//!
//! | needs no files | reads the real thing | gives |
//! | --- | --- | --- |
//! | [`digits::draw`] | [`mnist::load`] | grey [`Images`] of digits |
//! | [`shapes::draw`] | [`cifar::load10`], [`cifar::load100`] | coloured [`Images`], for [`Augment`] |
//! | [`folder::write_drawn`] | [`folder::Folder::open`] | pictures of any size, decoded while training |
//! | [`text::toy::draw`] | [`text::multi30k::load`] | sentences in two languages |
//!
//! [`Batches`] cuts images into shuffled mini-batches:
//!
//! ```
//! use tlr_models::data::{digits, Batches};
//!
//! let data = digits::draw(7, 100, 20)?;
//! let batches = Batches::new(data.train.len(), 32, 7)?;
//! let scaling = data.train.scaling();
//! let (mut pixels, mut labels) = (Vec::new(), Vec::new());
//! for indices in batches.epoch(0) {
//!     data.train.write_batch(&indices, &scaling, &mut pixels, &mut labels)?;
//!     assert_eq!(pixels.len(), indices.len() * 28 * 28);
//! }
//! # Ok::<(), tlr_models::data::DataError>(())
//! ```

pub mod cifar;
pub mod digits;
#[cfg(feature = "pictures")]
pub mod folder;
pub mod idx;
pub mod mnist;
pub mod shapes;
#[cfg(feature = "text")]
pub mod text;

mod augment;
mod batches;
mod contents;
mod error;
mod fingerprint;
mod images;
mod preparation_error;
mod random;
mod scaling;

pub use augment::Augment;
pub use batches::{Batches, EpochBatches};
pub use error::DataError;
pub(crate) use fingerprint::Fingerprint;
pub use images::{Dataset, Images};
pub use preparation_error::PreparationError;
pub use scaling::{NoScaling, Scaling};
