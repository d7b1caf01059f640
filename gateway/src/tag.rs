//! This node's part of every id.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::id::NodeTag;

/// Set once the tag can no longer change. The tag itself is in the low four bytes.
const FINAL: u64 = 1 << 32;

/// The tag of this node. Another node may turn out to have the same: it can be changed until the
/// first id was made with it.
#[derive(Debug)]
pub struct OwnTag(AtomicU64);

impl OwnTag {
    /// A tag that somebody chose, and that is never changed.
    pub fn fixed(tag: NodeTag) -> Self {
        Self(AtomicU64::new(bits(tag) | FINAL))
    }

    /// A random tag.
    pub fn random() -> Self {
        Self(AtomicU64::new(bits(NodeTag::random())))
    }

    /// The tag at this moment.
    pub fn get(&self) -> NodeTag {
        tag(self.0.load(Ordering::Relaxed))
    }

    /// The tag for an id: from here on it stays as it is.
    pub fn for_id(&self) -> NodeTag {
        let now = self.0.load(Ordering::Relaxed);
        // Mostly the first id was made long ago, and no thread has to write.
        tag(if now & FINAL == 0 { self.0.fetch_or(FINAL, Ordering::Relaxed) } else { now })
    }

    /// Draws another tag. Says whether that was possible.
    pub fn change(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        let other = std::iter::repeat_with(|| bits(NodeTag::random())).find(|new| *new != now);
        let unused = now & FINAL == 0;
        unused
            && other.is_some_and(|new| {
                self.0.compare_exchange(now, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            })
    }
}

fn bits(tag: NodeTag) -> u64 {
    tag.as_str().bytes().fold(0, |bits, byte| bits << 8 | u64::from(byte))
}

fn tag(bits: u64) -> NodeTag {
    let bytes = (bits as u32).to_be_bytes();
    let tag = std::str::from_utf8(&bytes).ok().and_then(NodeTag::parse);
    tag.expect("the bits of a tag are those of its characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_changes_until_the_first_id_is_made_with_it() {
        let own = OwnTag::random();
        let first = own.get();
        assert!(own.change());
        let second = own.get();
        assert_ne!(first, second);
        assert_eq!(own.for_id(), second);
        assert!(!own.change());
        assert_eq!((own.get(), own.for_id()), (second, second));
    }

    #[test]
    fn a_chosen_tag_never_changes() {
        let chosen = NodeTag::parse("-_a0").expect("four characters");
        let own = OwnTag::fixed(chosen);
        assert!(!own.change());
        assert_eq!(own.get(), chosen);
    }
}
