//! Making sure that this replica still leads (Raft thesis, 6.4): a leader may have been deposed and not know, and what it takes for the
//! latest may be old. A round of heartbeats that a majority answers in its term shows that nobody else was elected before the round began.
//!
//! Rounds follow one another: whatever is asked while one is under way shares the next.

use crate::config::ConfirmError;
use crate::group::Group;
use crate::message::MessageBody;
use crate::peers::Context;
use crate::quorum;
use crate::types::{Payload, ReplicaId};

/// The rounds of one leadership, by number, from 1 on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    asked: u64,
    begun: u64,
    confirmed: u64,
    /// What the driver knows to be confirmed.
    told: u64,
    /// Until whoever has not answered is asked again.
    ticks_left: u32,
}

impl Rounds {
    /// Whether answers are awaited, or are to be.
    pub(super) const fn is_under_way(&self) -> bool {
        self.confirmed < self.asked
    }
}

impl<P: Payload> Group<P> {
    pub(crate) fn confirm_leadership(&mut self) -> Result<u64, ConfirmError> {
        let leader = self.leader;
        let Some(leading) = &mut self.leading else { return Err(ConfirmError::NotLeader { leader }) };
        let rounds = &mut leading.rounds;
        // What answers a round that has begun may have been said before this question.
        rounds.asked = rounds.begun + 1;
        Ok(rounds.asked)
    }

    /// Ends the round that is under way if a majority has answered, and begins the next if there is one to begin. Returns the last one
    /// that is confirmed, if that is news.
    pub(super) fn advance_rounds(&mut self, cx: &Context) -> Option<u64> {
        loop {
            let leading = self.leading.as_mut()?;
            let rounds = &mut leading.rounds;
            if rounds.confirmed == rounds.begun {
                if !rounds.is_under_way() {
                    break;
                }
                rounds.begun = rounds.asked;
                self.ask_to_confirm(cx);
            } else {
                let round = rounds.begun;
                let agrees = |voter: ReplicaId| {
                    // A replica agrees with itself.
                    let progress = leading.progress.get(&voter);
                    progress.map_or(voter == cx.me(), |progress| progress.agreed_round >= round)
                };
                if !quorum::has_majority(self.memberships.current(), agrees) {
                    break;
                }
                leading.rounds.confirmed = round;
            }
        }
        let rounds = &mut self.leading.as_mut()?.rounds;
        let news = rounds.confirmed > rounds.told;
        rounds.told = rounds.confirmed;
        news.then_some(rounds.confirmed)
    }

    /// Sends heartbeats to whoever has not answered in this round, whatever else is on its way.
    fn ask_to_confirm(&mut self, cx: &Context) {
        let committed = self.log.committed();
        let voters = self.membership().all_voters();
        let Some(leading) = &mut self.leading else { return };
        leading.rounds.ticks_left = (cx.config.election_timeout_ticks / 3).max(1);
        let round = leading.rounds.begun;
        let mut questions = Vec::new();
        for (replica, progress) in &mut leading.progress {
            if voters.contains(replica) && progress.agreed_round < round {
                let seq = progress.next_seq();
                progress.asked_round = Some((seq, round));
                questions.push((
                    *replica,
                    MessageBody::Heartbeat { seq, commit: committed.min(progress.matched) },
                ));
            }
        }
        for (to, question) in questions {
            self.send(cx, to, question);
        }
    }

    /// Answers that do not come are asked for again: messages may be lost.
    pub(super) fn tick_rounds(&mut self, cx: &Context) {
        let Some(leading) = &mut self.leading else { return };
        let rounds = &mut leading.rounds;
        if rounds.confirmed == rounds.begun {
            return;
        }
        rounds.ticks_left = rounds.ticks_left.saturating_sub(1);
        if rounds.ticks_left == 0 {
            self.ask_to_confirm(cx);
        }
    }
}
