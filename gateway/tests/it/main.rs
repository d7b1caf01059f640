//! Black-box tests: the real binary, started as a process, and clients that write every byte
//! themselves. Nothing of the gateway's own codecs is used, so that a fault in one of them cannot
//! hide itself.

mod cluster;
mod corpus_handshake;
mod corpus_polling;
mod corpus_websocket;
mod mistakes;
mod operations;
mod support;
