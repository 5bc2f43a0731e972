//! Tests that need the inside of the store: a disk that fails, storage that is no disk. What a user of the crate can
//! see is tested in `tests/it/`.

mod at_hand;
mod garbage;
mod garbage_model;
mod many;
mod memory;
pub(crate) mod model;
mod power_cut;
mod refusals;
mod seam;
mod while_reading;
mod world;
