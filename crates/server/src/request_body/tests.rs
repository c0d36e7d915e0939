use super::*;
use crate::Settings;
use crate::context::ServerContext;

fn context(body_in_memory: usize, bodies_in_memory: usize) -> Arc<ServerContext> {
    let settings = Settings { body_in_memory, bodies_in_memory, ..Settings::default() };
    Arc::new(ServerContext::new(settings, false, Arc::default()))
}

/// Receives this body in pieces, as the connection does.
fn received(body: &[u8], size: usize, length: Length, context: &Arc<ServerContext>) -> RequestBody {
    let mut received = RequestBody { bytes: b"head".to_vec(), ..RequestBody::default() };
    received.begin_at(4);
    for piece in body.chunks(size) {
        received.bytes.extend_from_slice(b"5\r\n");
        let start = received.bytes.len();
        received.bytes.extend_from_slice(piece);
        received.store(start..start + piece.len(), length, &context.settings, &context.body_memory).unwrap();
        received.bytes.truncate(received.end);
        received.shrink();
    }
    received.finish().unwrap();
    received
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn available(context: &ServerContext) -> usize {
    context.body_memory.available()
}

#[test]
fn stored_data_is_read_back_from_memory_and_files() {
    for length in [0, 1, SMALL_BODY, SMALL_BODY + 1, 100_000, 600_000] {
        for size in [7, 1000, 100_000] {
            for (in_memory, together) in [(512 * 1024, 64 << 20), (512 * 1024, 0), (100, 0)] {
                for framing in [Length::Known(length as u64), Length::Chunked] {
                    let (context, body) = (context(in_memory, together), body(length));
                    let mut received = received(&body, size, framing, &context);
                    assert_eq!(received.length(), length as u64);
                    let mut read = Vec::new();
                    received.read_to_end(&mut read).unwrap();
                    assert!(read == body, "{length} bytes in pieces of {size}, {framing:?}");
                    received.clear();
                    assert_eq!(available(&context), together);
                }
            }
        }
    }
}

#[test]
fn all_but_the_smallest_bodies_use_the_budget() {
    let context = context(512 * 1024, 1 << 20);
    let small = received(&body(SMALL_BODY), 1000, Length::Chunked, &context);
    assert_eq!(available(&context), 1 << 20);
    let known = received(&body(100_000), 1000, Length::Known(100_000), &context);
    assert_eq!(available(&context), (1 << 20) - 100_000);
    let chunked = received(&body(100_000), 1000, Length::Chunked, &context);
    assert_eq!(available(&context), (1 << 20) - 100_000 - 128 * 1024);
    assert!(![&small, &known, &chunked].into_iter().any(RequestBody::is_spooled));
    drop((small, known, chunked));
    assert_eq!(available(&context), 1 << 20);
}

#[test]
fn a_spooled_body_releases_its_memory() {
    let context = context(512 * 1024, 1 << 20);
    let spooled = received(&body(2_000_000), 50_000, Length::Chunked, &context);
    assert!(spooled.is_spooled());
    assert_eq!(available(&context), 1 << 20);
    assert!(spooled.bytes.capacity() < 150_000, "{} bytes", spooled.bytes.capacity());
}

#[test]
fn unread_data_can_be_split_off() {
    for together in [0, 1 << 20] {
        let (context, body) = (context(512 * 1024, together), body(100_000));
        let mut received = received(&body, 1000, Length::Known(100_000), &context);
        received.read_exact(&mut [0; 1000]).unwrap();
        let mut rest = received.split_rest();
        assert_eq!(&received.bytes[..4], b"head");
        assert_eq!(received.read(&mut [0; 10]).unwrap(), 0);
        let mut read = Vec::new();
        rest.read_to_end(&mut read).unwrap();
        assert!(read == body[1000..]);
    }
}
