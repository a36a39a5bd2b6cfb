//! Connections to one server, or to all of a cluster: each command goes to the server that has its key.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redis::cluster_routing::Slot;
use redis::{Cmd, Value, cmd};

use super::wire::{Answer, Node, Refusal, Target, Trouble, Trust, Wire, text};

/// Commands on their way, in one piece, and where each of them goes.
#[derive(Default)]
pub(super) struct Commands {
    bytes: Vec<u8>,
    each: Vec<(Range<usize>, Slot)>,
}

impl Commands {
    /// Adds a command about `key`, which it names.
    pub fn push(&mut self, key: &[u8], command: &Cmd) {
        let from = self.bytes.len();
        command.write_packed_command(&mut self.bytes);
        self.each.push((from..self.bytes.len(), Slot::for_key(key)));
    }

    pub fn len(&self) -> usize {
        self.each.len()
    }
}

/// What is known of the servers, for all connections to them.
pub(super) struct Servers {
    pub target: Target,
    trust: Trust,
    addresses: Mutex<HashMap<Node, Vec<SocketAddr>>>,
    layout: Mutex<Arc<Layout>>,
}

/// Which server of a cluster has which slots.
#[derive(Default)]
struct Layout {
    nodes: Vec<Node>,
    /// Places in `nodes`.
    slots: HashMap<Slot, usize>,
}

impl Servers {
    pub fn new(target: Target) -> Self {
        Self { target, trust: Trust::default(), addresses: Mutex::default(), layout: Mutex::default() }
    }

    /// Finds the servers, and connects to all of them. Waits for the system's resolver, too: nobody's call does this.
    pub fn connect(self: &Arc<Self>, deadline: Instant) -> Result<Link, Trouble> {
        let first = self.target.node();
        lock(&self.addresses).insert(first.clone(), first.resolve()?);
        let mut link = self.link();
        let wire = link.wire(&first, deadline)?;
        if self.target.cluster {
            let layout = Layout::ask(wire, &first, deadline)?;
            for node in &layout.nodes {
                if !lock(&self.addresses).contains_key(node) {
                    lock(&self.addresses).insert(node.clone(), node.resolve()?);
                }
                link.wire(node, deadline)?;
            }
            *lock(&self.layout) = Arc::new(layout);
        }
        Ok(link)
    }

    /// Connects to servers once they are needed: to those that [`Servers::connect`] has found.
    pub fn link(self: &Arc<Self>) -> Link {
        Link { servers: Arc::clone(self), wires: BTreeMap::new() }
    }
}

impl Layout {
    fn ask(wire: &mut Wire, asked: &Node, deadline: Instant) -> Result<Self, Trouble> {
        let said = wire.ask(cmd("CLUSTER").arg("SLOTS"), deadline)?;
        let Ok(Value::Array(ranges)) = said else { return Err(Trouble::Refused("it knows no slots".to_owned())) };
        let range = |range: &Value| {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &range[..] else { return None };
            let [host, Value::Int(port), ..] = &primary[..] else { return None };
            // Nothing or a question mark: the one that was asked.
            let host = Some(text(host)).filter(|host| !host.is_empty() && host != "?");
            let host = host.unwrap_or_else(|| asked.host.clone());
            let node = Node { host, port: u16::try_from(*port).ok()? };
            Some((u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?, node))
        };
        let mut layout = Self::default();
        for (slots, node) in ranges.iter().filter_map(range) {
            let at = layout.nodes.iter().position(|known| *known == node).unwrap_or_else(|| {
                layout.nodes.push(node);
                layout.nodes.len() - 1
            });
            layout.slots.extend(slots.filter_map(Slot::new).map(|slot| (slot, at)));
        }
        if layout.nodes.is_empty() {
            return Err(Trouble::Refused("its cluster has no slots yet".to_owned()));
        }
        Ok(layout)
    }
}

/// Connections that one thread uses at a time.
pub(super) struct Link {
    servers: Arc<Servers>,
    wires: BTreeMap<Node, Wire>,
}

impl Link {
    /// Whether there is a connection yet.
    pub fn is_used(&self) -> bool {
        !self.wires.is_empty()
    }

    /// The connection to a server.
    pub fn wire(&mut self, node: &Node, deadline: Instant) -> Result<&mut Wire, Trouble> {
        if !self.wires.contains_key(node) {
            let servers = &self.servers;
            let known = lock(&servers.addresses).get(node).cloned();
            let addresses = known.map_or_else(|| node.resolve(), Ok)?;
            let wire = Wire::open(&servers.target, node, &addresses, &servers.trust, deadline)?;
            self.wires.insert(node.clone(), wire);
        }
        self.wires.get_mut(node).ok_or(Trouble::Late)
    }

    /// The servers that have keys.
    pub fn nodes(&self) -> Vec<Node> {
        if !self.servers.target.cluster {
            return vec![self.servers.target.node()];
        }
        lock(&self.servers.layout).nodes.clone()
    }

    /// Ends all connections.
    pub fn close(&mut self) {
        self.wires.clear();
    }

    /// The answer of one server to a command that is about no key.
    pub fn ask(&mut self, node: &Node, command: &Cmd, deadline: Instant) -> Result<Answer, Trouble> {
        let answer = self.wire(node, deadline).and_then(|wire| wire.ask(command, deadline));
        self.whole(answer)
    }

    /// Sends all commands, each to the server that has its key, and calls `each` with the place of each and its answer, in
    /// one round trip: one more where a cluster has moved keys.
    ///
    /// # Errors
    /// What happened to a connection: then nobody knows which commands took effect.
    pub fn run(
        &mut self,
        commands: &Commands,
        deadline: Instant,
        mut each: impl FnMut(usize, Answer),
    ) -> Result<(), Trouble> {
        let moved = if self.servers.target.cluster {
            self.spread(commands, deadline, &mut each)
        } else {
            self.pipeline(commands, deadline, &mut each).map(|()| Vec::new())
        };
        let moved = self.whole(moved)?;
        let followed = self.follow(commands, moved, deadline, each);
        self.whole(followed)
    }

    fn pipeline(
        &mut self,
        commands: &Commands,
        deadline: Instant,
        each: &mut impl FnMut(usize, Answer),
    ) -> Result<(), Trouble> {
        let node = self.servers.target.node();
        let wire = self.wire(&node, deadline)?;
        wire.send(&commands.bytes, deadline)?;
        for at in 0..commands.len() {
            each(at, wire.receive(deadline)?);
        }
        Ok(())
    }

    /// The places of commands whose keys are elsewhere by now, and where.
    fn spread(
        &mut self,
        commands: &Commands,
        deadline: Instant,
        each: &mut impl FnMut(usize, Answer),
    ) -> Result<Vec<(usize, Refusal)>, Trouble> {
        let layout = Arc::clone(&lock(&self.servers.layout));
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, (_, slot)) in commands.each.iter().enumerate() {
            let nowhere = || Trouble::Lost("no server of its cluster has the slot of a key".to_owned());
            groups.entry(*layout.slots.get(slot).ok_or_else(nowhere)?).or_default().push(at);
        }
        for (&node, places) in &groups {
            let bytes: Vec<u8> =
                places.iter().flat_map(|&at| &commands.bytes[commands.each[at].0.clone()]).copied().collect();
            self.wire(&layout.nodes[node], deadline)?.send(&bytes, deadline)?;
        }
        let mut moved = Vec::new();
        for (node, places) in groups {
            let wire = self.wire(&layout.nodes[node], deadline)?;
            for at in places {
                match wire.receive(deadline)? {
                    Err(refusal) if refusal.at.is_some() => moved.push((at, refusal)),
                    answer => each(at, answer),
                }
            }
        }
        Ok(moved)
    }

    /// Asks where a server has said that the keys are, and learns the layout anew.
    fn follow(
        &mut self,
        commands: &Commands,
        moved: Vec<(usize, Refusal)>,
        deadline: Instant,
        mut each: impl FnMut(usize, Answer),
    ) -> Result<(), Trouble> {
        if moved.is_empty() {
            return Ok(());
        }
        let asked = self.servers.target.node();
        for (at, refusal) in moved {
            let Some(mut node) = refusal.at.clone() else { continue };
            if node.host.is_empty() {
                node.host.clone_from(&asked.host);
            }
            let wire = self.wire(&node, deadline)?;
            if refusal.code == "ASK" {
                wire.ask(&cmd("ASKING"), deadline)?.ok();
            }
            wire.send(&commands.bytes[commands.each[at].0.clone()], deadline)?;
            each(at, wire.receive(deadline)?);
        }
        if let Some((node, wire)) = self.wires.iter_mut().next() {
            let layout = Layout::ask(wire, &node.clone(), deadline)?;
            *lock(&self.servers.layout) = Arc::new(layout);
        }
        Ok(())
    }

    /// After trouble, answers may still be on their way: no connection is used again.
    fn whole<T>(&mut self, outcome: Result<T, Trouble>) -> Result<T, Trouble> {
        if outcome.is_err() {
            self.close();
        }
        outcome
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
