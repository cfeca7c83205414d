//! Decodes any bytes with every decoder of the wire, for the fuzz target and the tests.

use protocol::{
    Encoding, UserId,
    codec::{from_msgpack, transcode},
    event::EventKind,
    frame::{Request, ServerFrame},
    input::Misfit,
    operation::{self, Operation, methods},
    splice::{self, SplicedParts},
};

/// Decodes the bytes as everything that a server or client may receive. It must not panic.
pub(crate) fn read(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        if let Ok(request) = Request::decode(encoding, bytes) {
            assert!(request.id > 0, "ids start at 1");
            for method in methods() {
                let _ = read_params(method, &request);
            }
        }
        let _ = ServerFrame::head(encoding, bytes);
        if let Ok(ServerFrame::Event(event)) = ServerFrame::decode(encoding, bytes) {
            let _ = event.read();
        }
    }
    if let Ok(json) = transcode(bytes) {
        assert!(
            serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok(),
            "what is transcoded is JSON"
        );
    }
    for kind in EventKind::ALL {
        if let Ok(frame) = splice::event(
            *kind,
            &SplicedParts {
                body: bytes,
                seq: 1,
                at: 1,
                ..SplicedParts::default()
            },
        ) {
            let _ = from_msgpack::<serde_json::Value>(&frame);
        }
    }
}

/// Decodes a request's parameters as the path and input of an operation.
pub(crate) fn read_params(method: &str, request: &Request<'_>) -> Result<(), Misfit> {
    macro_rules! read_as {
        (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            match method {
                $(<operation::$session::$of_session as Operation>::NAME => both::<operation::$session::$of_session>(request),)*
                $(<operation::$resource::$operation as Operation>::NAME => both::<operation::$resource::$operation>(request),)*
                other => panic!("{other} is not declared"),
            }
        };
    }
    protocol::operations!(read_as)
}

fn both<O: Operation>(request: &Request<'_>) -> Result<(), Misfit> {
    let caller = UserId::from_bits(1);
    let path = O::own_path(&caller).map_or_else(|| request.params::<O::Path>(), Ok);
    path.and(request.params::<O::Input>().map(drop))
}
