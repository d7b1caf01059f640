//! JSON to MessagePack and back.
