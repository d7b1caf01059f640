//! WebSocket frame headers.

use protocol::frame::{
    FrameHeader, Opcode, close_code, encode_header, encode_masked_header, parse_header, unmask,
};

const OPCODES: [Opcode; 6] =
    [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];

#[test]
fn headers_are_as_short_as_they_can_be_and_read_back() {
    let mask = [1, 2, 3, 4];
    for (len, header_len) in
        [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (usize::MAX >> 1, 10)]
    {
        for opcode in OPCODES.into_iter().filter(|opcode| !opcode.is_control() || len <= 125) {
            let header =
                FrameHeader { fin: true, opcode, payload_len: len as u64, mask: None, header_len };
            let mut bytes = Vec::new();
            encode_header(&mut bytes, opcode, len);
            assert_eq!(parse_header(&bytes), Ok(Some(header)));

            let masked = FrameHeader { mask: Some(mask), header_len: header_len + 4, ..header };
            bytes.clear();
            encode_masked_header(&mut bytes, opcode, len, mask);
            assert_eq!(parse_header(&bytes), Ok(Some(masked)));
        }
    }
}

#[test]
fn a_header_in_pieces_waits_for_the_rest() {
    let mut bytes = Vec::new();
    encode_masked_header(&mut bytes, Opcode::Binary, 70_000, [9, 8, 7, 6]);
    for end in 0..bytes.len() {
        assert_eq!(parse_header(&bytes[..end]), Ok(None), "{end} bytes");
    }
    bytes.extend_from_slice(b"payload");
    let header = parse_header(&bytes).expect("a right header").expect("a whole header");
    assert_eq!((header.header_len, header.payload_len), (14, 70_000));
}

#[test]
fn masking_works_at_every_length() {
    let mask = [0x11, 0x22, 0x33, 0x44];
    for len in 0..40 {
        let plain: Vec<u8> = (0..len).collect();
        let expected: Vec<u8> =
            plain.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let mut masked = plain.clone();
        unmask(&mut masked, mask);
        assert_eq!(masked, expected);
        unmask(&mut masked, mask);
        assert_eq!(masked, plain);
    }
}

#[test]
fn close_codes_that_may_be_sent_are_read() {
    assert_eq!(close_code(&[]), Ok(None));
    for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let mut payload = u16::to_be_bytes(code).to_vec();
        assert_eq!(close_code(&payload), Ok(Some(code)));
        payload.extend_from_slice("goodbye é".as_bytes());
        assert_eq!(close_code(&payload), Ok(Some(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert!(close_code(&u16::to_be_bytes(code)).is_err(), "{code}");
    }
}
