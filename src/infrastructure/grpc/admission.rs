//! Who may hold a connection. Newcomers, members and clients are counted apart, so that none keeps another kind out.
//!
//! A connection is a newcomer until it makes a call that says what it is for. Newcomers are many or few as it happens,
//! and nothing is known of them: when there are too many, the one that has been silent for the longest goes. When there
//! are too many clients, the one that has been idle for the longest goes; only if all of them have calls open is
//! another one refused. One machine has at most half of the newcomers' places, and one certificate half of the
//! clients': whoever takes them all does it at his own cost.
//!
//! A client that is told to go counts no longer, but has its file for as long as it takes to hear that. Of these there
//! may be few: those beyond are not waited for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_services::identity::Identity;
use tokio_util::sync::CancellationToken;

/// How many of each kind there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_field_names, reason = "a bound ends in _max")]
pub(super) struct Limits {
    pub(super) newcomers_max: usize,
    pub(super) members_max: usize,
    pub(super) clients_max: usize,
    /// Clients beyond `clients_max` that come to operate the cluster, or to see whether it is well.
    pub(super) operators_max: usize,
}

/// All connections of a port.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections so far, and ends of calls so far: the order in which things came.
    entered: u64,
    ended: u64,
    seats: BTreeMap<u64, Seat>,
    /// Newcomers that have made no call yet, and those that made one which did not say what they are.
    silent: BTreeSet<u64>,
    spoken: BTreeSet<u64>,
    members: usize,
    clients: usize,
    /// Newcomers, by the machine they come from.
    newcomers: BTreeMap<IpAddr, BTreeSet<u64>>,
    /// Clients, by the certificate that they have shown.
    holders: HashMap<Arc<Identity>, BTreeSet<u64>>,
    /// Clients without a call, by when the last one ended.
    idle: BTreeMap<u64, u64>,
    /// Clients that were told to go and are not gone.
    leaving: BTreeMap<u64, Leaving>,
}

#[derive(Debug)]
struct Seat {
    kind: Kind,
    from: IpAddr,
    identity: Option<Arc<Identity>>,
    leave: CancellationToken,
    end: CancellationToken,
}

#[derive(Debug)]
struct Leaving {
    /// Those it made before it heard of it.
    calls: usize,
    end: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Newcomer,
    Member,
    Client {
        calls: usize,
        /// Where it stands among the idle ones, if it is one.
        idle: u64,
    },
}

/// What is known of one connection, for those who serve it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    number: u64,
    /// Somebody else needs the place of this idle client: it is to go in good order.
    pub(super) leave: CancellationToken,
    /// Somebody else needs the place of this newcomer, or the file of this idle client: it is to go at once.
    pub(super) end: CancellationToken,
}

/// Holds the place as long as the connection lasts.
#[derive(Debug)]
pub(super) struct Seated(pub(super) Place);

/// A call of a client that has not ended.
#[derive(Debug)]
pub(super) struct OpenCall(Place);

/// There are as many as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full {
    pub(super) max: usize,
    /// As one certificate may hold, that is.
    pub(super) is_share: bool,
}

/// Clients that may take their time to go.
pub(super) const LEAVING_MAX: usize = 64;

impl Admission {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Lets a newcomer in, for which another one may have to go.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Seated {
        let mut state = self.state();
        let share = (self.limits.newcomers_max / 2).max(1);
        let oldest = state.newcomers.get(&from).filter(|own| own.len() >= share).and_then(BTreeSet::first).copied();
        if let Some(oldest) = oldest {
            state.close(oldest);
        } else if state.silent.len() + state.spoken.len() >= self.limits.newcomers_max {
            state.close_newcomer();
        }
        state.entered += 1;
        let (number, leave, end) = (state.entered, CancellationToken::new(), CancellationToken::new());
        let seat = Seat { kind: Kind::Newcomer, from, identity: None, leave: leave.clone(), end: end.clone() };
        state.seats.insert(number, seat);
        state.silent.insert(number);
        state.newcomers.entry(from).or_default().insert(number);
        Seated(Place { admission: Arc::clone(self), number, leave, end })
    }

    /// The process has no file left to open: whoever can be spared goes.
    pub(super) fn make_room(&self) {
        let mut state = self.state();
        if state.end_leaving() || state.close_newcomer() {
            return;
        }
        state.close_idle();
        state.end_leaving();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Silent ones first, and of these the oldest.
    fn close_newcomer(&mut self) -> bool {
        let oldest = self.silent.first().or_else(|| self.spoken.first()).copied();
        oldest.is_some_and(|number| self.close(number))
    }

    fn close_idle(&mut self) -> bool {
        let longest = self.idle.first_key_value().map(|(_, number)| *number);
        longest.is_some_and(|number| self.close(number))
    }

    fn close_idle_of(&mut self, identity: &Identity) -> bool {
        let Some(own) = self.holders.get(identity) else { return false };
        let longest = self.idle.values().find(|number| own.contains(number)).copied();
        longest.is_some_and(|number| self.close(number))
    }

    /// Whoever was told to go and has no call open goes at once.
    fn end_leaving(&mut self) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|_, leaving| {
            if leaving.calls == 0 {
                leaving.end.cancel();
            }
            leaving.calls > 0
        });
        self.leaving.len() < before
    }

    /// It counts no longer, though it takes a moment to end.
    fn close(&mut self, number: u64) -> bool {
        let Some(seat) = self.seats.get(&number) else { return false };
        match seat.kind {
            Kind::Newcomer => seat.end.cancel(),
            Kind::Member | Kind::Client { .. } => {
                seat.leave.cancel();
                self.leaving.insert(number, Leaving { calls: 0, end: seat.end.clone() });
            }
        }
        if self.leaving.len() > LEAVING_MAX {
            let oldest = self.leaving.iter().find(|(_, leaving)| leaving.calls == 0).or(self.leaving.first_key_value());
            if let Some(leaving) = oldest.map(|(number, _)| *number).and_then(|oldest| self.leaving.remove(&oldest)) {
                leaving.end.cancel();
            }
        }
        self.leave(number);
        true
    }

    /// A newcomer makes its first call, for which an idle client may have to go.
    fn become_client(&mut self, number: u64, limits: Limits, is_operator: bool) -> Result<(), Full> {
        let Limits { clients_max, operators_max, .. } = limits;
        let beyond = if is_operator { operators_max } else { 0 };
        let Some(seat) = self.seats.get(&number) else { return Ok(()) };
        let (from, identity) = (seat.from, seat.identity.clone());
        if let Some(identity) = &identity {
            let max = (clients_max / 2).max(1);
            let held = self.holders.get(identity).map_or(0, BTreeSet::len);
            if held >= max.saturating_add(beyond) && !self.close_idle_of(identity) {
                return Err(Full { max, is_share: true });
            }
        }
        if self.clients >= clients_max.saturating_add(beyond) && !self.close_idle() {
            return Err(Full { max: clients_max, is_share: false });
        }
        self.uncount(number, Kind::Newcomer, from, None);
        self.clients += 1;
        if let Some(seat) = self.seats.get_mut(&number) {
            seat.kind = Kind::Client { calls: 1, idle: 0 };
        }
        if let Some(identity) = identity {
            self.holders.entry(identity).or_default().insert(number);
        }
        Ok(())
    }

    fn leave(&mut self, number: u64) {
        let Some(seat) = self.seats.remove(&number) else { return };
        self.uncount(number, seat.kind, seat.from, seat.identity.as_deref());
    }

    fn uncount(&mut self, number: u64, kind: Kind, from: IpAddr, identity: Option<&Identity>) {
        match kind {
            Kind::Newcomer => {
                self.silent.remove(&number);
                self.spoken.remove(&number);
                if let Some(own) = self.newcomers.get_mut(&from) {
                    own.remove(&number);
                    if own.is_empty() {
                        self.newcomers.remove(&from);
                    }
                }
            }
            Kind::Member => self.members -= 1,
            Kind::Client { idle, .. } => {
                self.clients -= 1;
                self.idle.remove(&idle);
                if let Some(identity) = identity
                    && let Some(own) = self.holders.get_mut(identity)
                {
                    own.remove(&number);
                    if own.is_empty() {
                        self.holders.remove(identity);
                    }
                }
            }
        }
    }
}

impl Place {
    /// Who has proved to be there, before anything is said.
    pub(super) fn identify(&self, identity: &Identity) {
        if let Some(seat) = self.admission.state().seats.get_mut(&self.number) {
            seat.identity = Some(Arc::new(identity.clone()));
        }
    }

    /// A call was made that does not say what the connection is for.
    pub(super) fn speak(&self) {
        let mut state = self.admission.state();
        if state.silent.remove(&self.number) {
            state.spoken.insert(self.number);
        }
    }

    /// Nothing was said on it so far.
    pub(super) fn is_silent(&self) -> bool {
        self.admission.state().silent.contains(&self.number)
    }

    /// It is a member's: one that is to be heard whatever clients do.
    pub(super) fn is_member(&self) -> bool {
        self.admission.state().seats.get(&self.number).is_some_and(|seat| seat.kind == Kind::Member)
    }

    /// A member was recognised.
    pub(super) fn become_member(&self) -> Result<(), Full> {
        let max = self.admission.limits.members_max;
        let mut state = self.admission.state();
        let full = state.members >= max;
        let Some(seat) = state.seats.get_mut(&self.number) else { return Err(Full { max, is_share: false }) };
        if seat.kind == Kind::Member {
            return Ok(());
        }
        if full {
            return Err(Full { max, is_share: false });
        }
        let before = std::mem::replace(&mut seat.kind, Kind::Member);
        let (from, identity) = (seat.from, seat.identity.clone());
        state.uncount(self.number, before, from, identity.as_deref());
        state.members += 1;
        Ok(())
    }

    /// A client makes a call.
    pub(super) fn begin_call(&self, is_operator: bool) -> Result<OpenCall, Full> {
        let limits = self.admission.limits;
        let mut guard = self.admission.state();
        let state = &mut *guard;
        match state.seats.get_mut(&self.number).map(|seat| &mut seat.kind) {
            Some(Kind::Member) => {}
            // It was told to go and has not heard it yet: what it says is still listened to.
            None => {
                if let Some(leaving) = state.leaving.get_mut(&self.number) {
                    leaving.calls += 1;
                }
            }
            Some(Kind::Client { calls, idle }) => {
                *calls += 1;
                state.idle.remove(idle);
            }
            Some(Kind::Newcomer) => state.become_client(self.number, limits, is_operator)?,
        }
        drop(guard);
        Ok(OpenCall(self.clone()))
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Place { admission, number, .. } = &self.0;
        let mut guard = admission.state();
        let state = &mut *guard;
        state.ended += 1;
        if let Some(leaving) = state.leaving.get_mut(number) {
            leaving.calls = leaving.calls.saturating_sub(1);
        }
        let Some(Seat { kind: Kind::Client { calls, idle }, .. }) = state.seats.get_mut(number) else { return };
        *calls = calls.saturating_sub(1);
        if *calls == 0 {
            *idle = state.ended;
            state.idle.insert(state.ended, *number);
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut state = self.0.admission.state();
        state.leaving.remove(&self.0.number);
        state.leave(self.0.number);
    }
}

#[cfg(test)]
#[path = "tests/admission.rs"]
mod tests;
