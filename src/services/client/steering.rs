//! Which member to talk to: the leader if it is known, anybody who answers if not, and somebody else when that one fails.

use std::time::Duration;

use graft_domain::Instant;

use super::calls::Stage;
use super::demand::{Demand, Repeat};
use super::link::{Hint, Link, LinkId};
use super::session::State;
use super::{Clerk, Effect, Loss, Purpose};
use crate::error::Refusal;

/// How often in a row the leader is followed. Whoever was sent on so often stays where he is for a while: members that know
/// no better, or lie, pass calls on all the same.
const HOPS_MAX: u32 = 3;
const HOP_REST: Duration = Duration::from_secs(2);
/// Connections that are kept for what they owe.
const OLD_MAX: usize = 4;
/// How long a member has to say how it is. Silence is noticed sooner.
const VIEW_TIMEOUT: Duration = Duration::from_secs(5);

impl Clerk {
    pub(super) fn steer(&mut self) {
        self.give_up_the_silent();
        self.close_what_owes_nothing();
        self.look_at_the_members();
        if self.next.is_some() {
            return;
        }
        let Some(current) = &self.current else {
            if let Some(address) = self.endpoints.choose(self.now, &[]) {
                self.dial(address, false);
            }
            return;
        };
        if self.hop_at() <= self.now {
            if let Some(leader) = current.elsewhere.clone() {
                self.hops = if self.now.since(self.hopped) >= HOP_REST { 1 } else { self.hops + 1 };
                self.hopped = self.now;
                self.dial(leader, false);
            }
        } else if current.troubled_from(self.config.leaderless) <= self.now
            && let Some(address) = self.endpoints.choose(self.now, &[&current.address])
        {
            self.dial(address, true);
        }
    }

    pub(super) fn steering_deadline(&self) -> Instant {
        let standing = self.current.iter().chain(&self.old);
        let silent = standing.map(|link| link.silent_from(self.config.quiet)).min().unwrap_or(Instant::NEVER);
        let moving = match (&self.next, &self.current) {
            (Some(next), _) => {
                let ask = if next.stands && next.asked.is_none() { next.refresh } else { Instant::NEVER };
                ask.min(next.since + self.config.dial_timeout)
            }
            (None, None) => self.endpoints.opens(&[]),
            (None, Some(current)) => {
                let troubled = current.troubled_from(self.config.leaderless);
                self.hop_at().min(troubled.max(self.endpoints.opens(&[&current.address])))
            }
        };
        let refresh = self.current.as_ref().filter(|link| link.asked.is_none()).map(|link| link.refresh);
        silent.min(moving).min(refresh.unwrap_or(Instant::NEVER))
    }

    /// When the leader may be followed to where it is said to be.
    fn hop_at(&self) -> Instant {
        let Some(leader) = self.current.as_ref().and_then(|link| link.elsewhere.as_deref()) else {
            return Instant::NEVER;
        };
        let rested = if self.hops < HOPS_MAX { Instant::default() } else { self.hopped + HOP_REST };
        rested.max(self.endpoints.rests_until(leader))
    }

    fn dial(&mut self, address: String, is_look: bool) {
        self.links += 1;
        let link = LinkId(self.links);
        self.effects.push(Effect::Dial { link, address: address.clone() });
        self.next = Some(Link::new(link, address, self.now, is_look));
    }

    pub(super) fn connected(&mut self, id: LinkId, hint: Option<Hint>) {
        let now = self.now;
        let Some(link) = self.next.as_mut().filter(|next| next.id == id && !next.stands) else { return };
        (link.stands, link.since, link.heard, link.refresh) = (true, now, now, now);
        if let Some(hint) = hint {
            link.hears(hint, now);
        }
        if self.is_next_of_use() {
            self.ask_how_it_is(id);
        }
    }

    /// Whether the connection that is made is better than what there is; closes it if not.
    fn is_next_of_use(&mut self) -> bool {
        let (Some(next), Some(current)) = (&self.next, &self.current) else { return true };
        // One that has named the cluster beats one that has not.
        let knows_no_leader = next.is_look && next.leaderless.is_some() && current.is_named;
        let is_still_wanted = !next.is_look || current.troubled_from(self.config.leaderless) <= self.now;
        if !knows_no_leader && is_still_wanted && !next.in_trouble {
            return true;
        }
        if let Some(next) = self.next.take() {
            if knows_no_leader && !next.in_trouble {
                self.endpoints.strike(&next.address, "it knows of no leader", self.now, &mut self.random);
            }
            self.effects.push(Effect::Close(next.id));
            self.forfeit_all(next, "it was left for another one");
        }
        false
    }

    /// Its member has named this client's cluster: if it is the next one, calls go to it from now on.
    pub(super) fn take_up(&mut self, id: LinkId) {
        if self.next.as_ref().is_some_and(|next| next.id == id)
            && self.is_next_of_use()
            && let Some(next) = self.next.take()
            && let Some(former) = self.current.replace(next)
        {
            self.retire(former);
        }
    }

    /// Calls go elsewhere from now on. What one in trouble owes is asked for elsewhere as well, as far as that is safe.
    fn retire(&mut self, mut former: Link) {
        if former.troubled_from(self.config.leaderless) <= self.now {
            for (number, ()) in std::mem::take(&mut former.sent).into_pairs() {
                match self.sent.get(number).map(|sent| sent.purpose) {
                    Some(Purpose::Call(id)) if self.repeat(id) == Repeat::Never => former.sent.insert(number, ()),
                    Some(_) => self.forfeit(number, &former.address, "it was left for another one"),
                    None => {}
                }
            }
        }
        self.old.push(former);
        if self.old.len() > OLD_MAX {
            let oldest = self.old.remove(0);
            self.effects.push(Effect::Close(oldest.id));
            self.forfeit_all(oldest, "it was left for another one");
        }
    }

    fn repeat(&mut self, id: u64) -> Repeat {
        self.calls.find(id).map_or(Repeat::Free, |call| call.demand.repeat())
    }

    fn close_what_owes_nothing(&mut self) {
        let (done, old) = std::mem::take(&mut self.old).into_iter().partition(|link| link.sent.is_empty());
        self.old = old;
        let done: Vec<Link> = done;
        self.effects.extend(done.into_iter().map(|link| Effect::Close(link.id)));
    }

    /// Asks those that are silent how they are, and leaves those that do not even answer that.
    fn give_up_the_silent(&mut self) {
        let (now, quiet, dial_timeout) = (self.now, self.config.quiet, self.config.dial_timeout);
        if let Some(next) = self.next.take_if(|next| next.since + dial_timeout <= now) {
            self.effects.push(Effect::Close(next.id));
            let what = if next.stands { "say which cluster it belongs to" } else { "introduce itself" };
            let why = format!("it did not {what} within {dial_timeout:?}");
            self.endpoints.strike(&next.address, &why, now, &mut self.random);
            self.forfeit_all(next, &why);
        }
        let is_silent = |link: &&Link| link.silent_from(quiet) <= now;
        let standing = self.current.iter().chain(&self.old).filter(is_silent);
        let silent: Vec<(LinkId, bool)> = standing.map(|link| (link.id, link.asked.is_some())).collect();
        for (id, was_asked) in silent {
            if was_asked {
                self.effects.push(Effect::Close(id));
                self.lost(id, &format!("it has been silent for {:?}", quiet * 2).into());
            } else {
                self.ask_how_it_is(id);
            }
        }
    }

    /// From whom calls go to, when it has news, and once in a while; and again from who has not said which cluster he is of.
    fn look_at_the_members(&mut self) {
        let now = self.now;
        let is_due = |link: &&Link| link.asked.is_none() && link.refresh <= now;
        let next = self.next.iter().filter(|next| next.stands);
        let due: Vec<LinkId> = self.current.iter().chain(next).filter(is_due).map(|link| link.id).collect();
        for id in due {
            self.ask_how_it_is(id);
        }
    }

    fn ask_how_it_is(&mut self, id: LinkId) {
        let number = self.send(id, Demand::View, Purpose::View, VIEW_TIMEOUT);
        let (now, refresh) = (self.now, self.config.refresh);
        if let Some(link) = self.link(id) {
            link.asked = Some((number, now));
            link.refresh = now + refresh;
        }
    }

    pub(super) fn lost(&mut self, id: LinkId, Loss { why, is_distrust }: &Loss) {
        let link = self.next.take_if(|link| link.id == id).or_else(|| self.current.take_if(|link| link.id == id));
        let old = |clerk: &mut Self| {
            let place = clerk.old.iter().position(|link| link.id == id)?;
            Some(clerk.old.remove(place))
        };
        if let Some(link) = link.or_else(|| old(self)) {
            self.endpoints.strike(&link.address, why, self.now, &mut self.random);
            if *is_distrust {
                self.endpoints.distrust(&link.address);
            }
            self.forfeit_all(link, why);
            if self.current.is_none() && self.endpoints.all_distrust() {
                self.end_all_unsent();
            }
        }
    }

    fn forfeit_all(&mut self, link: Link, why: &str) {
        for (number, ()) in link.sent.into_pairs() {
            self.forfeit(number, &link.address, why);
        }
    }

    /// The answer to this will not come.
    fn forfeit(&mut self, number: u64, address: &str, why: &str) {
        let Some(sent) = self.sent.remove(number) else { return };
        match sent.purpose {
            Purpose::View => {}
            Purpose::Session => {
                if matches!(self.session.state, State::Opening { number: opening, .. } if opening == number) {
                    let trouble = Refusal::Unreachable(format!("{address}: {why}"));
                    self.session.failed(Some(trouble), self.now);
                }
            }
            Purpose::Call(id) => self.forfeit_call(id, address, why),
        }
    }

    pub(super) fn forfeit_call(&mut self, id: u64, address: &str, why: &str) {
        let Some(call) = self.calls.find(id) else { return };
        call.trouble = Some(Refusal::Unreachable(format!("{address}: {why}")));
        match call.demand.repeat() {
            Repeat::Free => self.calls.restage(id, Stage::Ready),
            Repeat::InSlot => {
                call.risked = true;
                self.calls.restage(id, Stage::Ready);
            }
            Repeat::Never => self.end_unknown(id, format!("{address} did not answer: {why}")),
        }
    }
}
