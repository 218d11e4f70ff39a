//! Everything as short text.

use helix_raft::{AppendResult, Body, Durability, Entry, Membership, Message, MessageBody, Role, Status};

pub(crate) fn entry(entry: &Entry<String>) -> String {
    let body = match &entry.body {
        Body::NoOp => "noop".to_owned(),
        Body::Data(payload) if payload.len() > 16 => format!("{}..{}", &payload[..4], payload.len()),
        Body::Data(payload) => payload.clone(),
        Body::Membership(members) => membership(members),
    };
    format!("{}:{body}", entry.position())
}

pub(crate) fn entries(entries: &[Entry<String>]) -> String {
    format!("[{}]", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
}

pub(crate) fn membership(members: &Membership) -> String {
    let list = |replicas: &[helix_raft::ReplicaId]| {
        replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let mut text = format!("voters({})", list(&members.voters));
    if !members.outgoing.is_empty() {
        text += &format!("outgoing({})", list(&members.outgoing));
    }
    if !members.learners.is_empty() {
        text += &format!("learners({})", list(&members.learners));
    }
    text
}

pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

pub(crate) fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::PageCache => "",
        Durability::Synced => " synced",
    }
}

pub(crate) fn message(message: &Message<String>) -> String {
    let body = match &message.body {
        MessageBody::PreVote { last_index, last_term, unclean }
        | MessageBody::Vote { last_index, last_term, unclean } => {
            format!("last={last_index}/{last_term}{}", if *unclean { " unclean" } else { "" })
        }
        MessageBody::PreVoteAnswer { granted, recovering }
        | MessageBody::VoteAnswer { granted, recovering } => {
            let answer = if *granted { "yes" } else { "no" };
            format!("{answer}{}", if *recovering { " recovering" } else { "" })
        }
        MessageBody::Append(append) => {
            let sound =
                append.sound_through.map(|index| format!(" sound-through={index}")).unwrap_or_default();
            format!(
                "prev={}/{} {} commit={}{}{sound}",
                append.prev_index,
                append.prev_term,
                entries(&append.entries),
                append.commit,
                durability(append.required),
            )
        }
        MessageBody::AppendAnswer(answer) => {
            let result = match answer.result {
                AppendResult::Matched { stored, synced, received, commit } => {
                    format!("stored={stored} synced={synced} received={received} commit={commit}")
                }
                AppendResult::Mismatch { prev_index, hint_index, hint_term } => {
                    format!("mismatch prev={prev_index} hint={hint_index}/{hint_term}")
                }
                AppendResult::OldTerm => "old-term".to_owned(),
            };
            format!("{result}{}", if answer.recovering { " recovering" } else { "" })
        }
        MessageBody::Heartbeat { commit, .. } => format!("commit={commit}"),
        MessageBody::TimeoutNow => String::new(),
        MessageBody::InstallStart { start } => format!("{}/{}", start.index, start.term),
        MessageBody::InstallStartAnswer { index } => format!("{index}"),
    };
    let head = format!("{}->{} {} {}", message.from, message.to, message.term, message.body.name());
    format!("{head} {body}").trim_end().to_owned()
}

pub(crate) fn status(status: &Status) -> String {
    let leader = status.leader.map_or("-".to_owned(), |leader| leader.to_string());
    let mut text = format!(
        "{} {} leader={leader} last={} commit={} applied={}",
        role(status.role),
        status.term,
        status.last_index,
        status.commit,
        status.applied
    );
    for (is, word) in [
        (status.leader_ready, " ready"),
        (status.recovering, " recovering"),
        (status.role == Role::Leader && !status.quorum_contact, " no-contact"),
    ] {
        text += if is { word } else { "" };
    }
    for progress in &status.progress {
        let state = if progress.replicating { "" } else { "?" };
        text += &format!(" {}={}{state}", progress.replica, progress.matched);
    }
    text
}
