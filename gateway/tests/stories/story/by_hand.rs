//! A connection whose frames a test writes by hand.

use super::*;

/// A connection whose frames are written by hand.
pub struct ByHand {
    pub socket: Socket,
    pub(super) encoding: Encoding,
    pub(super) last_id: u32,
}

impl ByHand {
    /// Asks, whatever the method, and has the reply as it came; events before it are passed over.
    pub async fn asks(&mut self, method: &str, params: Value) -> Value {
        self.asks_measured(method, params).await.1
    }

    /// The same, with the length of the reply in bytes.
    pub async fn asks_measured(&mut self, method: &str, params: Value) -> (usize, Value) {
        self.last_id += 1;
        let request = encode_request(self.encoding, self.last_id, method, &params);
        self.socket
            .send(Frame::of(self.encoding, request))
            .await
            .unwrap();
        self.hears_measured().await
    }

    /// The next reply as it came.
    pub async fn hears(&mut self) -> Value {
        self.hears_measured().await.1
    }

    async fn hears_measured(&mut self) -> (usize, Value) {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.receive())
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

    /// Asks, and gives away the events before the reply.
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
            let frame = self.receives().await;
            if frame.get("id").is_some() {
                return frame;
            }
            aside(frame);
        }
    }

    /// The next event; replies before it are passed over.
    pub async fn hears_event(&mut self) -> Value {
        loop {
            let frame = self.receives().await;
            if frame.get("event").is_some() {
                return frame;
            }
        }
    }

    async fn receives(&mut self) -> Value {
        let frame = tokio::time::timeout(PATIENCE, self.socket.receive())
            .await
            .expect("a frame in time")
            .unwrap();
        let (Frame::Text(bytes) | Frame::Binary(bytes)) = frame;
        self.encoding.decode(&bytes).unwrap()
    }

    /// Says something that need not be a request.
    pub async fn says(&mut self, frame: Frame) {
        self.socket.send(frame).await.unwrap();
    }

    /// How the connection ends; what comes before is passed over.
    pub async fn ends(&mut self) -> Closed {
        let end = async {
            loop {
                if let Err(closed) = self.socket.receive().await {
                    return closed;
                }
            }
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("an end in time")
    }
}
