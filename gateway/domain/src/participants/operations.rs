//! The operations of participants.

use protocol::{
    entity::Participant,
    operation::{
        empty::Empty,
        participant::{
            ParticipantAdd, ParticipantAddBatch, ParticipantList, ParticipantRead,
            ParticipantRemove, ParticipantUpdate,
        },
        path::ParticipantPath,
    },
};

use crate::{
    Services,
    document::Versioned,
    error::Result,
    participants::{self, add::Added},
    perform::{Call, Done, Perform},
};

impl Perform for ParticipantAdd {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(participant_done(
            participants::lists::read_participant(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                &call.input.user_id,
            )
            .await?,
        ))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let (participant, added) = participants::add::add_participant(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            call.input,
        )
        .await?;
        Ok(participant_done(participant).new_if(added == Added::Now))
    }
}

impl Perform for ParticipantList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            participants::lists::list_participants(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for ParticipantAddBatch {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            participants::add::add_participants(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                call.input.items,
            )
            .await?,
        ))
    }
}

impl Perform for ParticipantRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(participant_done(
            participants::lists::read_participant(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                &call.path.user_id,
            )
            .await?,
        ))
    }
}

impl Perform for ParticipantUpdate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let ParticipantPath {
            channel_id,
            user_id,
        } = &call.path;
        Ok(participant_done(
            participants::update_participant(
                services,
                call.caller.actor()?,
                channel_id,
                user_id,
                call.input,
                call.if_match,
            )
            .await?,
        ))
    }
}

impl Perform for ParticipantRemove {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        participants::remove::remove_participant(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            &call.path.user_id,
            call.if_match,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}

fn participant_done(participant: Versioned<Participant>) -> Done<Participant> {
    let read = participant.value.read;
    Done::entity(participant).with_count(read)
}
