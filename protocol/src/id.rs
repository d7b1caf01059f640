//! Identifiers of nodes, Engine.IO sessions and Socket.IO sockets.

use std::{fmt, str};

use rand::RngCore;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Length of every [`Id`] in characters.
pub const ID_LEN: usize = 20;

/// The first characters of every identifier a node makes, by which other nodes find its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeTag([u8; 4]);

impl NodeTag {
    /// Draws a tag.
    pub fn random() -> Self {
        let mut tag = [0; 4];
        rand::rng().fill_bytes(&mut tag);
        NodeTag(tag.map(character))
    }

    /// Reads a tag of exactly four base64url characters.
    pub fn parse(text: &str) -> Option<Self> {
        let tag: [u8; 4] = text.as_bytes().try_into().ok()?;
        is_base64url(&tag).then_some(NodeTag(tag))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

impl fmt::Display for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeTag({})", self.as_str())
    }
}

/// A session id or a socket id: node tag (4 characters), lane (1), and 90 random bits (15).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; ID_LEN]);

impl Id {
    /// Draws an id that belongs to `lane` of the node `tag`. Only the low six bits of `lane` are kept.
    pub fn generate(tag: NodeTag, lane: u8) -> Self {
        let mut id = [0; ID_LEN];
        rand::rng().fill_bytes(&mut id[5..]);
        for byte in &mut id[5..] {
            *byte = character(*byte);
        }
        id[..4].copy_from_slice(&tag.0);
        id[4] = character(lane);
        Id(id)
    }

    /// Reads an id of exactly twenty base64url characters.
    pub fn parse(text: &str) -> Option<Self> {
        let id: [u8; ID_LEN] = text.as_bytes().try_into().ok()?;
        is_base64url(&id).then_some(Id(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }

    /// The node that made this id.
    pub fn tag(&self) -> NodeTag {
        NodeTag([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// The lane of that node which owns the session or socket, 0 to 63.
    pub fn lane(&self) -> u8 {
        VALUES[usize::from(self.0[4])] & 63
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Shows only the tag, because a session id is a bearer secret and `Debug` output ends up in logs.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({}…)", self.tag())
    }
}

/// Whether a room name looks like an [`Id`]: twenty base64url characters.
///
/// Every socket is in a room named after itself, so whoever may join such a room could read its direct messages.
pub fn has_id_form(name: &str) -> bool {
    name.len() == ID_LEN && is_base64url(name.as_bytes())
}

fn character(random: u8) -> u8 {
    ALPHABET[usize::from(random & 63)]
}

/// The value of each byte as a character of the alphabet, [`NO_VALUE`] for all others.
const VALUES: [u8; 256] = {
    let mut values = [NO_VALUE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

const NO_VALUE: u8 = 0xff;

fn is_base64url(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |seen, byte| seen | VALUES[usize::from(*byte)]) != NO_VALUE
}

fn ascii(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("identifiers hold only characters of the base64url alphabet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_node_and_lane() {
        let tag = NodeTag::parse("a-_9").expect("four base64url characters");
        for lane in 0..64 {
            let id = Id::generate(tag, lane);
            assert_eq!((id.tag(), id.lane()), (tag, lane));
            assert_eq!(Id::parse(id.as_str()), Some(id));
            assert!(has_id_form(id.as_str()));
        }
    }

    #[test]
    fn ids_differ_and_hide_their_secret_part() {
        let tag = NodeTag::random();
        assert_eq!(NodeTag::parse(tag.as_str()), Some(tag));
        let (one, two) = (Id::generate(tag, 1), Id::generate(tag, 1));
        assert_ne!(one, two);
        assert_eq!(format!("{one:?}"), format!("Id({tag}…)"));
        assert_eq!(one.to_string().len(), ID_LEN);
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in ["", "abc", "abcdefghijklmnopqrs=", "abcdefghijklmnopqrstu", "éééééééééé"]
        {
            assert_eq!(Id::parse(text), None, "{text}");
            assert!(!has_id_form(text), "{text}");
        }
        assert_eq!(NodeTag::parse("abcé"), None);
        assert_eq!(NodeTag::parse("ab/d"), None);
    }
}
