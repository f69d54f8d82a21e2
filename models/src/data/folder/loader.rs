//! Batches of pictures, decoded on threads while a model trains on those before.

use std::{
    num::NonZeroUsize,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{sync_channel, Receiver, SyncSender},
        Arc,
    },
    thread::JoinHandle,
};

use super::{Crop, Pictures, Preparation};
use crate::data::DataError;

/// On how many threads pictures are decoded, and how far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loader {
    /// How many threads there are. Each prepares whole batches. Default one a core.
    pub threads: NonZeroUsize,
    /// Batches that a thread may finish before they are asked for, besides the one it works on.
    /// Default 1.
    pub ahead: usize,
}

impl Default for Loader {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { threads, ahead: 1 }
    }
}

/// The pictures of a batch, ready for a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PictureBatch {
    /// The values of a tensor of shape (pictures, 3, side, side).
    pub pixels: Vec<f32>,
    /// The class of each picture.
    pub labels: Vec<usize>,
}

impl Pictures {
    /// The batches of the pictures `order`, in that order, decoded on threads while the caller
    /// trains.
    ///
    /// At most `threads * (ahead + 1)` batches are in memory besides those handed out. Neither
    /// order nor pixels depend on the number of threads. After an error the iterator ends; dropping
    /// it ends the threads, which takes them a picture at most.
    ///
    /// # Errors
    /// [`DataError::Preparation`] for sizes that make no sense, [`DataError::Index`] when an index
    /// in `order` is not below [`len`](Self::len), [`DataError::Thread`] when there are no threads
    /// to be had. The iterator's items are errors of [`read`](Self::read) that name the file.
    ///
    /// Example: [the module](super).
    pub fn batches(
        &self,
        order: impl IntoIterator<Item = Vec<usize>>,
        prepare: &Preparation,
        crop: Crop,
        loader: Loader,
    ) -> Result<PictureBatches, DataError> {
        prepare.check()?;
        let order: Arc<[Vec<usize>]> = order.into_iter().collect();
        for &index in order.iter().flatten() {
            self.entry(index)?;
        }
        let threads = loader.threads.get().min(order.len());
        let stop = Arc::new(AtomicBool::new(false));
        // The threads are started one by one. If one cannot be started, this is dropped, which ends
        // those before it.
        let mut batches =
            PictureBatches { lanes: Vec::new(), next: 0, len: order.len(), stop, failed: false };
        for lane in 0..threads {
            let (sender, receiver) = sync_channel(loader.ahead.min(order.len()));
            let work = Work {
                pictures: self.clone(),
                order: Arc::clone(&order),
                prepare: *prepare,
                crop,
                stop: Arc::clone(&batches.stop),
            };
            let thread = std::thread::Builder::new()
                .name("pictures".into())
                .spawn(move || work.run(lane, threads, &sender))
                .map_err(|source| DataError::Thread { source })?;
            batches.lanes.push(Lane { receiver, thread });
        }
        Ok(batches)
    }
}

type Item = Result<PictureBatch, DataError>;

/// What a thread needs.
struct Work {
    pictures: Pictures,
    order: Arc<[Vec<usize>]>,
    prepare: Preparation,
    crop: Crop,
    stop: Arc<AtomicBool>,
}

impl Work {
    /// Prepares every `threads`-th batch from `lane` on.
    fn run(&self, lane: usize, threads: usize, sender: &SyncSender<Item>) {
        for indices in self.order.iter().skip(lane).step_by(threads) {
            let Some(item) = self.prepare(indices) else { return };
            let failed = item.is_err();
            if sender.send(item).is_err() || failed {
                return;
            }
        }
    }

    /// Makes the batch. None once the receiver was dropped.
    fn prepare(&self, indices: &[usize]) -> Option<Item> {
        let side = self.prepare.side as usize;
        let mut pixels = Vec::with_capacity(indices.len() * 3 * side * side);
        let mut labels = Vec::with_capacity(indices.len());
        for &index in indices {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let appended = self.pictures.append(index, &self.prepare, self.crop, &mut pixels);
            match appended.and_then(|()| self.pictures.entry(index)) {
                Ok((_, label)) => labels.push(label),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(PictureBatch { pixels, labels }))
    }
}

/// A thread, and where its batches arrive.
#[derive(Debug)]
struct Lane {
    receiver: Receiver<Item>,
    thread: JoinHandle<()>,
}

/// Batches decoded ahead, see [`Pictures::batches`].
#[derive(Debug)]
pub struct PictureBatches {
    /// Batch `i` comes from lane `i % lanes`.
    lanes: Vec<Lane>,
    next: usize,
    len: usize,
    stop: Arc<AtomicBool>,
    failed: bool,
}

impl Iterator for PictureBatches {
    type Item = Result<PictureBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next == self.len {
            return None;
        }
        let lane = self.lanes.get(self.next % self.lanes.len().max(1))?;
        // A thread ends early only if it panics.
        let item = lane.receiver.recv().unwrap_or(Err(DataError::Worker { batch: self.next }));
        self.next += 1;
        self.failed = item.is_err();
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = if self.failed { 0 } else { self.len - self.next };
        (left.min(1), Some(left))
    }
}

impl Drop for PictureBatches {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let (receivers, threads): (Vec<_>, Vec<_>) =
            self.lanes.drain(..).map(|lane| (lane.receiver, lane.thread)).unzip();
        // A thread that waits for room learns that there will be none.
        drop(receivers);
        for thread in threads {
            // If the thread has panicked, its batches are missing already: no second panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;
    use crate::data::{
        folder::{write_drawn, Folder},
        Batches, PreparationError,
    };

    /// 24 pictures to train on, of three classes.
    fn drawn() -> (TempDir, Pictures) {
        let dir = tempfile::tempdir().unwrap();
        write_drawn(dir.path(), 1, 24, 3, 3, 24).unwrap();
        let pictures = Folder::open(dir.path()).unwrap().train;
        (dir, pictures)
    }

    fn loader(threads: usize, ahead: usize) -> Loader {
        Loader { threads: NonZeroUsize::new(threads).unwrap(), ahead }
    }

    /// Batches of one picture, in the order of the files.
    fn singles(pictures: &Pictures, loader: Loader) -> PictureBatches {
        let order = (0..pictures.len()).map(|i| vec![i]);
        pictures.batches(order, &Preparation::square(16), Crop::Centre, loader).unwrap()
    }

    #[test]
    fn order_and_pixels_do_not_depend_on_the_number_of_threads() {
        let (_dir, pictures) = drawn();
        let epoch = || Batches::new(pictures.len(), 5, 3).unwrap().epoch(1);
        let crop = Crop::Random { seed: 9, epoch: 1 };
        let prepare = Preparation::square(16);
        let expected: Vec<PictureBatch> = epoch()
            .map(|indices| PictureBatch {
                pixels: indices
                    .iter()
                    .flat_map(|&i| pictures.read(i, &prepare, crop).unwrap())
                    .collect(),
                labels: indices.iter().map(|&i| pictures.get(i).unwrap().1).collect(),
            })
            .collect();
        assert_eq!(expected.len(), 5);
        for (threads, ahead) in [(1, 0), (1, 3), (2, 0), (3, 1), (4, 2), (16, 1)] {
            let batches =
                pictures.batches(epoch(), &prepare, crop, loader(threads, ahead)).unwrap();
            let batches: Vec<_> = batches.map(Result::unwrap).collect();
            assert!(batches == expected, "{threads} threads, {ahead} ahead");
        }
    }

    #[test]
    fn no_more_batches_are_in_memory_than_told() {
        for (threads, ahead) in [(2, 0), (2, 1), (3, 2)] {
            let (_dir, pictures) = drawn();
            let bound = threads * (ahead + 1);
            let mut batches = singles(&pictures, loader(threads, ahead));
            batches.next().unwrap().unwrap();
            // Time enough to read them all, if nothing held the threads back.
            std::thread::sleep(Duration::from_millis(300));
            for index in 1 + bound..pictures.len() {
                std::fs::remove_file(pictures.get(index).unwrap().0).unwrap();
            }
            let read = batches.take_while(Result::is_ok).count();
            assert!(read <= bound, "{threads} threads, {ahead} ahead: {read}");
        }
    }

    #[test]
    fn a_damaged_file_ends_the_epoch_in_its_turn() {
        for threads in [1, 3] {
            let (_dir, pictures) = drawn();
            let (path, _) = pictures.get(6).unwrap();
            std::fs::write(path, b"\x89PNG\r\n\x1a\nbut not really").unwrap();
            let mut batches = singles(&pictures, loader(threads, 1));
            for _ in 0..6 {
                batches.next().unwrap().unwrap();
            }
            let error = batches.next().unwrap().unwrap_err();
            assert!(matches!(&error, DataError::Picture { path: p, .. } if p == path), "{error}");
            assert!(batches.next().is_none());
            assert_eq!(batches.size_hint(), (0, Some(0)));
        }
    }

    #[test]
    fn dropping_the_batches_ends_the_threads() {
        let (_dir, pictures) = drawn();
        for taken in [0, 1, 5] {
            let mut batches = singles(&pictures, loader(3, 1));
            batches.by_ref().take(taken).for_each(|batch| {
                batch.unwrap();
            });
            assert!(Arc::strong_count(&pictures.files) > 1);
            let start = Instant::now();
            drop(batches);
            // The threads hold the list: if one had not ended, it would hold it still.
            assert_eq!(Arc::strong_count(&pictures.files), 1, "{:?}", start.elapsed());
        }
    }

    #[test]
    fn a_thread_that_ends_early_is_an_error() {
        let (_, receiver) = sync_channel(0);
        let thread = std::thread::spawn(|| {});
        let mut batches = PictureBatches {
            lanes: vec![Lane { receiver, thread }],
            next: 2,
            len: 5,
            stop: Arc::default(),
            failed: false,
        };
        let error = batches.next().unwrap().unwrap_err();
        assert!(matches!(error, DataError::Worker { batch: 2 }), "{error}");
        assert!(batches.next().is_none());
    }

    #[test]
    fn what_cannot_begin_is_refused() {
        let (_dir, pictures) = drawn();
        let batches = |order: Vec<Vec<usize>>, side| {
            let prepare = Preparation { side, ..Preparation::default() };
            pictures.batches(order, &prepare, Crop::Centre, loader(2, 1))
        };
        let error = batches(vec![vec![0], vec![1, 24]], 8).unwrap_err();
        assert!(matches!(error, DataError::Index { index: 24, len: 24 }), "{error}");
        let error = batches(vec![vec![0]], 0).unwrap_err();
        assert!(matches!(error, DataError::Preparation(PreparationError::NoSide)), "{error}");
        assert_eq!(batches(Vec::new(), 8).unwrap().count(), 0);
        let all = (0..24).map(|i| vec![i]);
        let far = loader(2, usize::MAX);
        let far = pictures.batches(all, &Preparation::square(8), Crop::Centre, far).unwrap();
        assert_eq!(far.count(), 24);
        let empty: Vec<_> = batches(vec![Vec::new()], 8).unwrap().map(Result::unwrap).collect();
        assert_eq!(empty, [PictureBatch { pixels: Vec::new(), labels: Vec::new() }]);
    }
}
