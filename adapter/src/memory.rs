//! The mode of a node that is alone: what is delivered locally has reached everybody.

use crate::{LinkState, Published};
use tokio::sync::watch;

pub(crate) struct Memory {
    link: watch::Sender<LinkState>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { link: watch::Sender::new(LinkState::Memory) }
    }

    pub(crate) fn broadcast(&self) -> Published {
        Published::LocalOnly
    }

    pub(crate) fn link(&self) -> &watch::Sender<LinkState> {
        &self.link
    }
}
