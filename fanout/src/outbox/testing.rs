//! A sink whose capacity a test controls.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Sink;
use crate::sync::Mutex;

#[derive(Default)]
struct State {
    room: usize,
    calls: usize,
    written: Vec<u8>,
    waker: Option<Waker>,
    broken: bool,
    indirect: bool,
}

/// Accepts as many bytes as it has room for.
pub(crate) struct Pipe(Mutex<State>);

impl Pipe {
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            room,
            ..State::default()
        })))
    }

    /// Like a TLS session: only the owner writes.
    #[cfg(shuttle)]
    pub(crate) fn indirect(room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            room,
            indirect: true,
            ..State::default()
        })))
    }

    /// Makes room for more bytes.
    pub(crate) fn open(&self, room: usize) {
        let mut state = self.0.lock();
        state.room = state.room.saturating_add(room);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn break_off(&self) {
        self.0.lock().broken = true;
        self.open(1);
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        self.0.lock().written.clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.lock().calls
    }

    /// The written bytes, split into frames made by [`frame`].
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let written = self.written();
        let (mut rest, mut frames) = (&written[..], Vec::new());
        while rest.len() >= 4 {
            let length = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if rest.len() < 4 + length {
                break;
            }
            frames.push(rest[4..4 + length].to_vec());
            rest = &rest[4 + length..];
        }
        frames
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.frames()
            .into_iter()
            .map(|frame| String::from_utf8_lossy(&frame).into_owned())
            .collect()
    }
}

/// Returns a frame of a length and the payload.
pub(crate) fn frame(payload: impl AsRef<[u8]>) -> Bytes {
    let payload = payload.as_ref();
    [&(payload.len() as u32).to_be_bytes()[..], payload]
        .concat()
        .into()
}

impl Sink for Pipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock();
        state.calls += 1;
        if state.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        for buffer in buffers {
            let take = buffer.len().min(state.room);
            state.written.extend_from_slice(&buffer[..take]);
            state.room -= take;
            taken += take;
        }
        if taken == 0 && buffers.iter().any(|b| !b.is_empty()) {
            Err(ErrorKind::WouldBlock.into())
        } else {
            Ok(taken)
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.room > 0 || state.broken {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_direct(&self) -> bool {
        !self.0.lock().indirect
    }
}
