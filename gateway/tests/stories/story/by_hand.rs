//! A connection whose frames a test writes by hand.

use super::*;

/// A raw connection, whose frames a test writes itself.
pub struct ByHand {
    pub socket: Socket,
    pub(super) encoding: Encoding,
    pub(super) last_id: u32,
}

impl ByHand {
    /// Sends a request and returns the raw reply; skips events before it.
    pub async fn asks(&mut self, method: &str, params: Value) -> Value {
        self.asks_measured(method, params).await.1
    }

    /// Like `asks`, and returns the length of the reply in bytes, too.
    pub async fn asks_measured(&mut self, method: &str, params: Value) -> (usize, Value) {
        self.last_id += 1;
        let request = encode_request(self.encoding, self.last_id, method, &params);
        self.socket
            .send(Frame::of(self.encoding, request))
            .await
            .unwrap();
        self.receives_measured().await
    }

    /// Returns the next raw reply.
    pub async fn receives_reply(&mut self) -> Value {
        self.receives_measured().await.1
    }

    async fn receives_measured(&mut self) -> (usize, Value) {
        loop {
            let frame = tokio::time::timeout(TIMEOUT, self.socket.receive())
                .await
                .expect("a reply in time")
                .unwrap();
            let (Frame::Text(bytes) | Frame::Binary(bytes)) = frame;
            let reply: Value = self.encoding.decode(&bytes).unwrap();
            if reply.get("id").is_some() {
                return (bytes.len(), reply);
            }
        }
    }

    /// Sends a request, and returns the events before the reply, too.
    pub async fn asks_aside(
        &mut self,
        method: &str,
        params: Value,
        mut aside: impl FnMut(Value),
    ) -> Value {
        self.last_id += 1;
        let request = encode_request(self.encoding, self.last_id, method, &params);
        self.socket
            .send(Frame::of(self.encoding, request))
            .await
            .unwrap();
        loop {
            let frame = self.next_frame().await;
            if frame.get("id").is_some() {
                return frame;
            }
            aside(frame);
        }
    }

    /// Returns the next event; skips replies before it.
    pub async fn receives_event(&mut self) -> Value {
        loop {
            let frame = self.next_frame().await;
            if frame.get("event").is_some() {
                return frame;
            }
        }
    }

    async fn next_frame(&mut self) -> Value {
        let frame = tokio::time::timeout(TIMEOUT, self.socket.receive())
            .await
            .expect("a frame in time")
            .unwrap();
        let (Frame::Text(bytes) | Frame::Binary(bytes)) = frame;
        self.encoding.decode(&bytes).unwrap()
    }

    /// Sends a frame of any content.
    pub async fn says(&mut self, frame: Frame) {
        self.socket.send(frame).await.unwrap();
    }

    /// Waits for the end of the connection, and returns its close code.
    pub async fn ends(&mut self) -> Closed {
        let end = async {
            loop {
                if let Err(closed) = self.socket.receive().await {
                    return closed;
                }
            }
        };
        tokio::time::timeout(TIMEOUT, end)
            .await
            .expect("an end in time")
    }
}
