//! Bounds on what one connection may cost.

/// A sustained rate with a burst (token bucket).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The number of events accepted at once.
    pub burst: u32,
    /// The number of further events accepted per second.
    pub per_second: u32,
}

/// The limits of a connection and of each request on it. Sizes are in bytes.
///
/// What exceeds a limit of a request is answered with a status on its stream. What exceeds a limit of the connection
/// closes it with GOAWAY(`ENHANCE_YOUR_CALM`), unless another consequence is documented.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`. Further streams are reset with `REFUSED_STREAM`, which counts toward `resets`, or
    /// toward `control_frames` until the client has acknowledged the settings.
    pub concurrent_streams: u32,
    /// `SETTINGS_MAX_FRAME_SIZE`, 16,384 to 16,777,215.
    pub frame_size: u32,
    /// `SETTINGS_MAX_HEADER_LIST_SIZE`: the decoded head, with 32 bytes added per field (RFC 9113, section 6.5.2).
    /// Exceeding it is a 431; exceeding four times as much closes the connection.
    pub header_list_size: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`: the received and unreleased body data of one stream, at most 2^31 - 1.
    pub stream_window: u32,
    /// The received and unreleased body data of all streams together: 65,535 to 2^31 - 1.
    pub connection_window: u32,
    /// Method, path and query with two spaces. Exceeding it is a 414.
    pub request_line: usize,
    /// The number of fields in a head, where all cookies are one field. Exceeding it is a 431.
    pub fields: usize,
    /// One field, or all cookies: name, value and 4 more, as in an HTTP/1 field line. Exceeding it is a 431.
    pub field_size: usize,
    /// The body of one request; `u64::MAX` means no limit. Exceeding it is a 413.
    pub body: u64,
    /// The decoded heads of all open streams together, in the measure of [`Limits::header_list_size`]. A stream that
    /// exceeds it is reset with `REFUSED_STREAM`.
    pub heads: usize,
    /// Output that has not been taken. Beyond it, data is not accepted, and input is not read while it
    /// requires an acknowledgement. At least 1,024.
    pub output: usize,
    /// `RST_STREAM` frames of the client, and those that its mistakes make this side send.
    pub resets: Rate,
    /// Frames that make no progress with a request: SETTINGS, PING, PRIORITY, `WINDOW_UPDATE`, unknown types, and DATA
    /// without data. A request, and each DATA frame sent, add two events to what is accepted.
    pub control_frames: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            concurrent_streams: 100,
            frame_size: 16_384,
            header_list_size: 65_536,
            stream_window: 1 << 20,
            connection_window: 1 << 20,
            request_line: 8190,
            fields: 100,
            field_size: 8190,
            body: u64::MAX,
            heads: 1 << 20,
            output: 65_536,
            resets: Rate { burst: 200, per_second: 20 },
            control_frames: Rate { burst: 1000, per_second: 100 },
        }
    }
}
