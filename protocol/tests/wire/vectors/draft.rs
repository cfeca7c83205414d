//! Vectors before they have a number.

use std::{collections::HashMap, fs};

use protocol::{
    Encoding, UserId,
    operation::{self, Description, Operation, encode_call, encode_output},
};

use super::{Direction, Vector, example, path};

type Frame = Box<dyn Fn(u32, Encoding) -> Vec<u8>>;

/// A vector before it has a number.
pub(super) struct Draft {
    name: String,
    /// Without one, the description in the file stays.
    description: Option<String>,
    /// Description of a vector that is not in the file yet.
    default_description: String,
    direction: Direction,
    frame: Frame,
}

impl Draft {
    /// A request for an operation.
    pub(super) fn request<O: Operation>(
        name: &str,
        description: Option<&str>,
        path: O::Path,
        input: O::Input,
    ) -> Self {
        let path = O::own_path(&UserId::from_bits(1)).is_none().then_some(path);
        let frame = move |id, encoding| encode_call::<O>(encoding, id, path.as_ref(), &input);
        Self::new::<O>(
            name,
            description,
            Direction::ClientToServer,
            Box::new(frame),
        )
    }

    /// The reply to a request for an operation.
    pub(super) fn reply<O: Operation>(
        name: &str,
        description: Option<&str>,
        output: O::Output,
    ) -> Self {
        let frame = move |id, encoding| encode_output::<O>(encoding, id, &output);
        Self::new::<O>(
            name,
            description,
            Direction::ServerToClient,
            Box::new(frame),
        )
    }

    fn new<O: Operation>(
        name: &str,
        description: Option<&str>,
        direction: Direction,
        frame: Frame,
    ) -> Self {
        Self {
            name: name.to_owned(),
            description: description.map(str::to_owned),
            default_description: match direction {
                Direction::ClientToServer => format!("{}.", Description::of::<O>().summary()),
                Direction::ServerToClient => format!("The result of {}.", O::NAME),
            },
            direction,
            frame,
        }
    }
}

/// Returns a request or a reply of every WebSocket method that `drafts` lacks, after those.
pub(super) fn with_all_methods(mut drafts: Vec<Draft>, direction: Direction) -> Vec<Draft> {
    fn add<O: Operation>(drafts: &mut Vec<Draft>, direction: Direction) {
        if O::WEBSOCKET.is_none() || drafts.iter().any(|draft| draft.name == O::NAME) {
            return;
        }
        drafts.push(match direction {
            Direction::ClientToServer => {
                Draft::request::<O>(O::NAME, None, example::of(), O::example())
            }
            Direction::ServerToClient => Draft::reply::<O>(O::NAME, None, example::of()),
        });
    }
    macro_rules! add_all {
        (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            $(add::<operation::$session::$of_session>(&mut drafts, direction);)*
            $(add::<operation::$resource::$operation>(&mut drafts, direction);)*
        };
    }
    protocol::operations!(add_all);
    drafts
}

/// Numbers the drafts by their places in the file of the group; new ones come last.
pub(super) fn numbered(group: &str, mut drafts: Vec<Draft>) -> Vec<Vector> {
    let kept: Vec<Vector> = fs::read_to_string(path(group))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let places: HashMap<&str, usize> = kept
        .iter()
        .enumerate()
        .map(|(place, vector)| (vector.name.as_str(), place))
        .collect();
    drafts.sort_by_key(|draft| {
        let place = places.get(draft.name.as_str());
        place.copied().unwrap_or(usize::MAX)
    });
    let number = |(draft, id): (Draft, u32)| {
        let kept_description = || {
            let place = places.get(draft.name.as_str())?;
            Some(kept[*place].description.clone())
        };
        let description = draft
            .description
            .clone()
            .or_else(kept_description)
            .unwrap_or_else(|| draft.default_description.clone());
        Vector::new(&draft.name, &description, draft.direction, |encoding| {
            (draft.frame)(id, encoding)
        })
    };
    drafts.into_iter().zip(1..).map(number).collect()
}
