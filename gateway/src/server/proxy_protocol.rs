//! The PROXY protocol, version 2: how a TCP balancer says whose connection it passes on.

use std::io;
use std::net::IpAddr;

use ppp::v2::{Addresses, Command, Header};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Signature, command, family and length: what every header begins with.
const FIXED_BYTES: usize = 16;

/// Longest rest that is read; balancers add certificates and ids, but not kilobytes of them.
const REST_BYTES_MAX: usize = 4096;

/// Reads the header from the very beginning of a connection. Nothing behind it is consumed. Answers
/// nothing for connections of the balancer's own, such as its health checks.
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) || rest > REST_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    header.resize(FIXED_BYTES + rest, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    let header = Header::try_from(header.as_slice()).map_err(|_| io::ErrorKind::InvalidData)?;
    if header.command == Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        Addresses::IPv4(addresses) => Some(addresses.source_address.into()),
        Addresses::IPv6(addresses) => Some(IpAddr::from(addresses.source_address).to_canonical()),
        Addresses::Unspecified | Addresses::Unix(_) => None,
    })
}
