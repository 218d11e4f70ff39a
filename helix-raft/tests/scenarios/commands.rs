//! The commands of the scenarios.
//!
//! ```text
//! cluster 1,2,3 [outgoing=..] [learners=4] [required=synced] [inflight=N] [inflight-bytes=N] [append-bytes=N]
//! log N terms [term=T] [committed=I]   the log of N before it starts, by the terms of its entries; `-` for none
//! join N                               a replica that knows nothing yet of the group
//! start N|all [recovering] [memory=K]  starts a process, with the newest K entries in memory
//! crash N                              ends it; what was not written is lost
//! tick N|all [count]
//! deliver [from=N] [to=N] [kind=K]     until nothing is left that matches; `step` delivers once
//! drop [from=N] [to=N] [kind=K] [last] `dup` sends twice, `reverse` turns the order around
//! cut A B | heal                       nothing passes between A and B
//! hears N M yes|no                     N hears of M and reaches it, or not; `reaches` is about the latter alone
//! slow N | fast N                      the disk of N waits for commands, or works at once
//! persist N | write N [count] | report N [count] | fail N
//! propose N word [count] [size]
//! force-recover N
//! confirm N                            asks whether N still leads
//! campaign N | transfer N M | wake N M | serve N | trim N | move-start N index | incarnation N M number
//! change N voters=.. [learners=..] | replace N old new   asks N to change the members
//! inject N leader term prev_index prev_term entries.. commit=I [required=synced]   an append as if from a leader; entry: term or term=1,2
//! install N leader term index start_term   a start as if from a leader
//! ask-vote N candidate term              a request for a vote as if from a candidate with a long log
//! beat N leader term [commit=I]        a heartbeat as if from a leader
//! read N follower from prev_term index/term..   the driver of N has read these entries; start-for N follower index term   has made a start
//! timeout-now N leader term            a request to campaign at once as if from a leader
//! status | log-of N | net | members N
//! ```
//!
//! A command after `!` says nothing.

use helix_raft::{
    Append, Body, Durability, Entry, Incarnation, Index, Membership, Message, MessageBody, ReplicaId, Start,
    Term,
};

use crate::show;
use crate::world::{GROUP, Settings, World};

struct Arguments<'a> {
    words: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Arguments<'a> {
    fn parse(text: &'a str) -> Arguments<'a> {
        let (options, words): (Vec<&str>, Vec<&str>) =
            text.split_whitespace().partition(|word| word.contains('=') && !word.starts_with("members"));
        Arguments { words, options: options.iter().filter_map(|option| option.split_once('=')).collect() }
    }

    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or_else(|| panic!("argument {at} is missing in {:?}", self.words))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn number(&self, at: usize) -> u64 {
        self.word(at).parse().unwrap_or_else(|_| panic!("{} is no number", self.word(at)))
    }

    fn number_or(&self, at: usize, default: u64) -> u64 {
        self.words.get(at).map_or(default, |_| self.number(at))
    }

    fn replica(&self, at: usize) -> ReplicaId {
        ReplicaId(self.number(at))
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.iter().find(|option| option.0 == name).map(|option| option.1)
    }

    fn option_number(&self, name: &str) -> Option<u64> {
        self.option(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{value} is no number")))
    }
}

pub(crate) fn run(world: &mut World, line: &str) {
    world.silent = line.starts_with('!');
    let arguments = Arguments::parse(line.trim_start_matches('!'));
    let handled = run_setup(world, &arguments)
        || run_network(world, &arguments)
        || run_disk(world, &arguments)
        || run_raft(world, &arguments)
        || run_forged(world, &arguments);
    assert!(handled, "there is no command {line:?}");
    world.settle();
    world.silent = false;
}

fn replicas(list: Option<&str>) -> Vec<ReplicaId> {
    let list = list.unwrap_or_default().split(',').filter(|number| !number.is_empty());
    list.map(|number| ReplicaId(number.parse().expect("a replica is a number"))).collect()
}

fn addressed(world: &World, word: &str) -> Vec<ReplicaId> {
    match word {
        "all" => world.replicas.keys().copied().collect(),
        number => replicas(Some(number)),
    }
}

fn run_setup(world: &mut World, arguments: &Arguments<'_>) -> bool {
    match arguments.word(0) {
        "cluster" => {
            world.replicas.clear();
            let members = Membership {
                voters: replicas(Some(arguments.word(1))),
                outgoing: replicas(arguments.option("outgoing")),
                learners: replicas(arguments.option("learners")),
            };
            let defaults = Settings::default();
            let limit = |name, default| arguments.option_number(name).map_or(default, |value| value as usize);
            world.settings = Settings {
                required: match arguments.option("required") {
                    Some("synced") => Durability::Synced,
                    _ => Durability::PageCache,
                },
                max_inflight: limit("inflight", defaults.max_inflight),
                max_inflight_bytes: limit("inflight-bytes", defaults.max_inflight_bytes),
                max_append_bytes: limit("append-bytes", defaults.max_append_bytes),
                members: members.clone(),
            };
            for member in members.members() {
                world.add(member, &[], None);
            }
        }
        "log" => {
            let id = arguments.replica(1);
            let terms: Vec<u64> = arguments.word(2).split(',').filter_map(|term| term.parse().ok()).collect();
            world.add(id, &terms, arguments.option_number("term"));
            world.replica(id).committed = Index(arguments.option_number("committed").unwrap_or(0));
        }
        "start" => {
            for id in addressed(world, arguments.word(1)) {
                let memory = arguments.option_number("memory").unwrap_or(u64::MAX >> 1) as usize;
                world.start(id, arguments.has("recovering"), memory);
            }
        }
        "join" => world.join(arguments.replica(1)),
        "crash" => world.crash(arguments.replica(1)),
        _ => return false,
    }
    true
}

fn chosen(arguments: &Arguments<'_>) -> impl Fn(&Message<String>) -> bool {
    let from = arguments.option_number("from").map(ReplicaId);
    let to = arguments.option_number("to").map(ReplicaId);
    let kind = arguments.option("kind").map(str::to_owned);
    move |message| {
        from.is_none_or(|from| message.from == from)
            && to.is_none_or(|to| message.to == to)
            && kind.as_ref().is_none_or(|kind| message.body.name() == kind)
    }
}

fn run_network(world: &mut World, arguments: &Arguments<'_>) -> bool {
    match arguments.word(0) {
        "deliver" => {
            let mut rounds = 0;
            while world.deliver_once(chosen(arguments)) > 0 {
                rounds += 1;
                assert!(rounds < 200, "this never ends");
            }
        }
        "step" => {
            world.deliver_once(chosen(arguments));
        }
        "drop" => {
            let chosen = chosen(arguments);
            if arguments.has("last") {
                let last = world.network.iter().rposition(chosen).expect("there is one to drop");
                world.network.remove(last);
            } else {
                world.network.retain(|message| !chosen(message));
            }
        }
        "dup" => {
            let chosen = chosen(arguments);
            let again: Vec<_> = world.network.iter().filter(|message| chosen(message)).cloned().collect();
            world.network.extend(again);
        }
        "reverse" => world.network.reverse(),
        "cut" => {
            let (a, b) = (arguments.replica(1), arguments.replica(2));
            world.cut.extend([(a, b), (b, a)]);
        }
        "heal" => world.cut.clear(),
        "net" => {
            for message in world.network.clone() {
                world.say(&format!("  {}", show::message(&message)));
            }
        }
        "hears" => {
            let yes = arguments.word(3) == "yes";
            world.liveness(arguments.replica(1), arguments.replica(2), yes, yes);
        }
        "reaches" => {
            world.liveness(arguments.replica(1), arguments.replica(2), true, arguments.word(3) == "yes");
        }
        _ => return false,
    }
    true
}

fn run_disk(world: &mut World, arguments: &Arguments<'_>) -> bool {
    let all = usize::MAX as u64;
    match arguments.word(0) {
        "slow" => world.replica(arguments.replica(1)).slow_disk = true,
        "fast" => world.replica(arguments.replica(1)).slow_disk = false,
        "persist" => world.replica(arguments.replica(1)).persist_hard(),
        "write" => world.replica(arguments.replica(1)).write(arguments.number_or(2, all) as usize),
        "report" => world.replica(arguments.replica(1)).report(arguments.number_or(2, all) as usize),
        "fail" => world.replica(arguments.replica(1)).fail_writes(),
        "serve" => {
            for line in world.replica(arguments.replica(1)).serve() {
                world.say(&line);
            }
        }
        "trim" => world.raft(arguments.replica(1)).trim_tails(),
        "move-start" => world.replica(arguments.replica(1)).move_start(Index(arguments.number(2))),
        "log-of" => {
            let text = world.replica(arguments.replica(1)).log_text();
            world.say(&text);
        }
        _ => return false,
    }
    true
}

fn run_raft(world: &mut World, arguments: &Arguments<'_>) -> bool {
    match arguments.word(0) {
        "tick" => {
            for _ in 0..arguments.number_or(2, 1) {
                for id in addressed(world, arguments.word(1)) {
                    if world.replica(id).raft.is_some() {
                        world.raft(id).tick();
                    }
                    world.settle();
                }
            }
        }
        "propose" => {
            let id = arguments.replica(1);
            let (word, count, size) =
                (arguments.word(2), arguments.number_or(3, 1), arguments.number_or(4, 0));
            for number in 1..=count {
                let mut payload = if count == 1 { word.to_owned() } else { format!("{word}{number}") };
                while (payload.len() as u64) < size {
                    payload.push('.');
                }
                if let Err(error) = world.raft(id).propose(GROUP, payload) {
                    world.say(&format!("refused: {error}"));
                }
            }
        }
        "require" => {
            let synced = arguments.word(2) == "synced";
            let required = if synced { Durability::Synced } else { Durability::PageCache };
            world.raft(arguments.replica(1)).set_required(GROUP, required);
        }
        "confirm" => confirm(world, arguments.replica(1)),
        "campaign" => world.raft(arguments.replica(1)).campaign(GROUP),
        "force-recover" => {
            if let Err(error) = world.raft(arguments.replica(1)).force_recover(GROUP) {
                world.say(&format!("refused: {error}"));
            }
        }
        "transfer" => {
            if let Err(error) =
                world.raft(arguments.replica(1)).transfer_leadership(GROUP, arguments.replica(2))
            {
                world.say(&format!("refused: {error}"));
            }
        }
        "change" => {
            let target = Membership {
                voters: replicas(arguments.option("voters")),
                outgoing: Vec::new(),
                learners: replicas(arguments.option("learners")),
            };
            change(world, arguments.replica(1), &target);
        }
        "replace" => {
            let leader = arguments.replica(1);
            let status = world.raft(leader).status(GROUP).expect("the group is here");
            let target = status.membership.replacing(arguments.replica(2), arguments.replica(3));
            change(world, leader, &target);
        }
        "wake" => world.wake(arguments.replica(1), arguments.replica(2)),
        "incarnation" => {
            let number = Incarnation(arguments.number(3));
            world.raft(arguments.replica(1)).peer_incarnation(arguments.replica(2), number);
        }
        "status" => {
            let ids: Vec<ReplicaId> = world.replicas.keys().copied().collect();
            for id in ids {
                world.status(id);
            }
        }
        "members" => {
            let id = arguments.replica(1);
            let status = world.raft(id).status(GROUP).expect("the group is here");
            let removed = if world.raft(id).is_removed(GROUP) { " removed" } else { "" };
            world.say(&format!("{id} {}{removed}", show::membership(&status.membership)));
        }
        _ => return false,
    }
    true
}

/// Messages as if from others, and answers as if from the driver.
fn run_forged(world: &mut World, arguments: &Arguments<'_>) -> bool {
    match arguments.word(0) {
        "inject" => inject(world, arguments),
        "ask-vote" => {
            let (to, from) = (arguments.replica(1), arguments.replica(2));
            let term = Term(arguments.number(3));
            let body = MessageBody::Vote { last_index: Index(99), last_term: term, unclean: false };
            forge(world, to, from, term, body);
        }
        "beat" => beat(world, arguments),
        "install" => install(world, arguments),
        "read" => answer_read(world, arguments),
        "start-for" => {
            let (index, term) = (Index(arguments.number(3)), Term(arguments.number(4)));
            let start = start_at(world, index, term);
            world.raft(arguments.replica(1)).start_provided(GROUP, arguments.replica(2), start);
        }
        "timeout-now" => {
            let (to, from, term) = (arguments.replica(1), arguments.replica(2), Term(arguments.number(3)));
            forge(world, to, from, term, MessageBody::TimeoutNow);
        }
        _ => return false,
    }
    true
}

fn confirm(world: &mut World, id: ReplicaId) {
    match world.raft(id).confirm_leadership(GROUP) {
        Ok(round) => world.say(&format!("round {round}")),
        Err(error) => world.say(&format!("refused: {error}")),
    }
}

fn change(world: &mut World, leader: ReplicaId, target: &Membership) {
    if let Err(error) = world.raft(leader).change_membership(GROUP, target) {
        world.say(&format!("refused: {error}"));
    }
}

/// An append as if from a leader: `inject TO FROM TERM PREV_INDEX PREV_TERM ENTRY.. [commit=I]`, where an entry is
/// its term, or `members:1,2,3` of the term of the leader.
fn inject(world: &mut World, arguments: &Arguments<'_>) {
    let (to, from, term) = (arguments.replica(1), arguments.replica(2), Term(arguments.number(3)));
    let (prev_index, prev_term) = (Index(arguments.number(4)), Term(arguments.number(5)));
    let mut entries: Vec<Entry<String>> = Vec::new();
    for word in arguments.words.iter().skip(6) {
        let index = entries.last().map_or(prev_index, |entry| entry.index).next();
        let before = entries.last().map_or(prev_term, |entry| entry.term);
        let (term, body) = match word.strip_prefix("members:") {
            Some(list) => (term, Body::Membership(Membership::of_voters(replicas(Some(list))))),
            None => {
                let term = Term(word.parse().expect("an entry is its term"));
                (term, Body::Data(format!("e{index}{term}")))
            }
        };
        entries.push(Entry { index, term, prev_term: before, body });
    }
    let append = Append {
        seq: 1,
        prev_index,
        prev_term,
        entries,
        commit: Index(arguments.option_number("commit").unwrap_or(0)),
        required: match arguments.option("required") {
            Some("synced") => Durability::Synced,
            _ => world.settings.required,
        },
        sound_through: None,
    };
    forge(world, to, from, term, MessageBody::Append(append));
}

/// A heartbeat as if from a leader: `beat TO FROM TERM [commit=I]`.
fn beat(world: &mut World, arguments: &Arguments<'_>) {
    let (to, from, term) = (arguments.replica(1), arguments.replica(2), Term(arguments.number(3)));
    let commit = Index(arguments.option_number("commit").unwrap_or(0));
    forge(world, to, from, term, MessageBody::Heartbeat { seq: 1, commit });
}

/// A start as if from a leader: `install TO FROM TERM INDEX START_TERM`.
fn install(world: &mut World, arguments: &Arguments<'_>) {
    let (to, from, term) = (arguments.replica(1), arguments.replica(2), Term(arguments.number(3)));
    let start = start_at(world, Index(arguments.number(4)), Term(arguments.number(5)));
    forge(world, to, from, term, MessageBody::InstallStart { start });
}

fn start_at(world: &World, index: Index, term: Term) -> Start<String> {
    let membership = world.settings.members.clone();
    Start { index, term, membership, payload: "forged".to_owned() }
}

/// What the driver may have read for a follower: `read LEADER FOLLOWER FROM PREV_TERM INDEX/TERM..`.
fn answer_read(world: &mut World, arguments: &Arguments<'_>) {
    let (leader, to) = (arguments.replica(1), arguments.replica(2));
    let (from, first_prev_term) = (Index(arguments.number(3)), Term(arguments.number(4)));
    let mut prev_term = first_prev_term;
    let mut entries: Vec<Entry<String>> = Vec::new();
    for word in arguments.words.iter().skip(5) {
        let (index, term) = word.split_once('/').expect("an entry is its index and term");
        let number = |text: &str| text.parse::<u64>().expect("index and term are numbers");
        let (index, term) = (Index(number(index)), Term(number(term)));
        entries.push(Entry { index, term, prev_term, body: Body::Data(format!("e{index}{term}")) });
        prev_term = term;
    }
    world.raft(leader).entries_read(GROUP, to, from, first_prev_term, entries);
}

fn forge(world: &mut World, to: ReplicaId, from: ReplicaId, term: Term, body: MessageBody<String>) {
    let (from_incarnation, to_incarnation) = (Incarnation(1), Incarnation(0));
    let message = Message { group: GROUP, from, to, from_incarnation, to_incarnation, term, body };
    world.raft(to).step(message);
}
