------------------------------- MODULE Graft -------------------------------
(* What is built: the Raft engine of src/domain, as a specification.                                         *)
(*                                                                                                           *)
(* The words are those of Ongaro's thesis ("Consensus: Bridging Theory and Practice", 2014), sections are    *)
(* its sections, and every action names the module of Rust that it stands for. Beyond the thesis:            *)
(*                                                                                                           *)
(*  - Persisting is an action of its own (docs/decisions/0003). A step changes what is in memory and puts a  *)
(*    numbered write behind those on their way to the disk. What binds its sender (votes, requests for them, *)
(*    acknowledgements) is held back until the write that it rests on is durable, and a leader counts itself *)
(*    only as far as its own disk has come.                                                                  *)
(*  - Memberships change one vote at a time or jointly, with learners (§4; docs/decisions/0009).             *)
(*  - Pre-votes (§9.6), leadership transfer (§3.10), snapshots and the log's end that they replace (§5).     *)
(*                                                                                                           *)
(* Time is not in it: whatever waits for a clock may happen at any moment. So leases and reads are not in it *)
(* either, nor anything that only makes the engine fast or keeps its memory small. Disks lose what was not   *)
(* durable and nothing else. See docs/specification.md.                                                      *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  Server,    \* All that are members at some time.
  Nobody,    \* Who is voted for while nobody is.
  Founding,  \* The membership that the cluster is founded with.
  Command    \* What clients ask for: numbers from 1 on.

VARIABLES
  node,      \* What each server has in memory and on its disk.
  messages,  \* All that was ever sent. Whatever is there may arrive, at any time, again, or never.
  snapshots, \* Every snapshot that was ever durable somewhere. Its bytes travel beside the messages.
  history    \* What was true once and must stay so: nothing that a server could look at.

vars == <<node, messages, snapshots, history>>

(* Nothing here is recursive. So declared, a checker that would copy them out wherever they are used calls    *)
(* them instead.                                                                                             *)
RECURSIVE Durable(_), Recovered(_, _), Config(_), ConfigAt(_, _), Majority(_, _), IsQuorum(_, _), Rest(_, _),
  After(_, _, _),
  Settled(_, _), Advanced(_, _), Persisted(_, _), Found(_, _), OnVote(_, _, _, _), OnVoteReply(_, _),
  OnPreVoteReply(_, _), OnTimeoutNow(_, _, _), OnAppend(_, _, _), OnAppendReply(_, _, _), OnSnapshot(_, _, _),
  AppendTo(_, _, _, _), Reformed(_, _), IsStep(_, _), Installed(_, _), IsPromotable(_, _), CanCarry(_, _, _),
  Follow(_, _),
  Does(_, _), Receive(_, _), Persist(_, _), Restart(_, _, _), PreCampaign(_), Campaign(_), StepDown(_),
  Propose(_, _), SendAppend(_, _, _), Reprobe(_, _), SendTimeoutNow(_, _), ChangeMembership(_, _),
  LeaveJoint(_, _), TakeSnapshot(_, _), Compact(_, _), OfferSnapshot(_, _, _), FetchSnapshot(_, _),
  InstallSnapshot(_, _), HandlePreVote(_, _, _), HandleVote(_, _, _), Refuse(_, _)

Max(S) == CHOOSE x \in S : \A y \in S : y <= x
Min(S) == CHOOSE x \in S : \A y \in S : x <= y
Least(a, b) == IF a < b THEN a ELSE b
Most(a, b) == IF a > b THEN a ELSE b
Range(f) == {f[x] : x \in DOMAIN f}

-----------------------------------------------------------------------------
(* Memberships (§4): src/domain/membership.rs, src/domain/quorum.rs.                                         *)
(* One is [voters, outgoing, learners]; it is joint while `outgoing`, the half that is being left, is not    *)
(* empty (C_old,new of §4.3). NoConfig stands in entries that are no membership.                             *)

NoConfig == [voters |-> {}, outgoing |-> {}, learners |-> {}]
IsJoint(c) == c.outgoing # {}
Members(c) == c.voters \cup c.outgoing \cup c.learners
IsVoter(c, i) == i \in c.voters \/ i \in c.outgoing

Majority(S, voters) == 2 * Cardinality(S \cap voters) > Cardinality(voters)

(* quorum::is_quorum: a majority of every half.                                                              *)
IsQuorum(c, S) == Majority(S, c.voters) /\ (IsJoint(c) => Majority(S, c.outgoing))

WithoutOutgoing(c) == [c EXCEPT !.outgoing = {}]

(* Membership::may_become in reconfiguration.rs: one vote is given or taken, or the next is joint and the    *)
(* half that it leaves is the one before. Whoever comes or goes without a vote does so in the same step.     *)
MayBecome(c, d) ==
  /\ ~IsJoint(c)
  /\ d.voters # {}
  /\ IF IsJoint(d) THEN d.outgoing = c.voters
     ELSE Cardinality((c.voters \ d.voters) \cup (d.voters \ c.voters)) <= 1

-----------------------------------------------------------------------------
(* Logs (§3.5): src/domain/log.rs.                                                                           *)
(* `log` holds all entries from the first on. Those up to `base` are forgotten there, and are known by the   *)
(* snapshot only: nothing below looks at one of them, but for the term of the last.                          *)

Entry(t, command, config) == [term |-> t, command |-> command, config |-> config]
TermAt(log, k) == IF k = 0 THEN 0 ELSE log[k].term
Id(log, k) == [term |-> TermAt(log, k), index |-> k]
LastId(log) == Id(log, Len(log))

(* How logs compare in an election (§3.6.1).                                                                 *)
IsAtLeast(a, b) == a.term > b.term \/ (a.term = b.term /\ a.index >= b.index)

(* Log::covers: it holds this very entry, or has forgotten it under the snapshot.                            *)
Covers(s, id) ==
  id.index < s.base \/ (id.index <= Len(s.log) /\ TermAt(s.log, id.index) = id.term)

(* Log::last_at_most: so that one probe skips a whole term (§3.5, last paragraph).                           *)
LastAtMost(s, k, t) ==
  Max({s.base} \cup {x \in s.base + 1 .. Least(k, Len(s.log)) : s.log[x].term <= t})

(* A membership is in force from when it is in the log (§4.1).                                               *)
ConfigIndex(log, upto) == Max({0} \cup {k \in 1 .. Least(upto, Len(log)) : log[k].config # NoConfig})
ConfigAt(log, upto) == LET k == ConfigIndex(log, upto) IN IF k = 0 THEN Founding ELSE log[k].config
Config(s) == ConfigAt(s.log, Len(s.log))

(* Up to where two logs are the same. By the log matching property the last equal entry says it.             *)
Agreed(a, b) == Max({0} \cup {k \in 1 .. Least(Len(a), Len(b)) : a[k] = b[k]})

-----------------------------------------------------------------------------
(* Disks: src/domain/durability.rs, and recovery in src/infrastructure/store.                                *)
(* A write is [term, vote, log]: what is in memory when it is numbered. `disk` is what is durable, `pending` *)
(* are the writes on their way, in their order, `snap` is the newest durable snapshot: the entries that it   *)
(* covers are its state.                                                                                     *)

(* What a restart would find. A stored log counts only as far as it follows on the snapshot.                 *)
Recovered(write, snap) ==
  IF Len(snap) <= Len(write.log) /\ TermAt(write.log, Len(snap)) = TermAt(snap, Len(snap)) THEN write.log ELSE snap

(* Durability::index: up to here the log is durable, and stays so whatever write on its way is the next one  *)
(* to be done: what was cut from the log is not durable although the disk may still, or again, hold it.      *)
(* A snapshot counts as far as the log rests on it: one that was fetched and is not installed yet is not      *)
(* known to the core.                                                                                        *)
UpToWrite(s, w) == LET found == Recovered(w, SubSeq(s.snap, 1, s.base)) IN Agreed(s.log, found)
Durable(s) == Min({UpToWrite(s, w) : w \in {s.disk} \cup Range(s.pending)})

HardStateIsDurable(s) == s.disk.term = s.term /\ s.disk.vote = s.vote

(* How many of the writes on their way have to be done first: seq_of_hard_state and seq_of_log.              *)
RestOfHardState(s) ==
  IF HardStateIsDurable(s) THEN 0
  ELSE Min({n \in 1 .. Len(s.pending) : s.pending[n].term = s.term /\ s.pending[n].vote = s.vote})
RestOfLog(s, k) == IF k <= Durable(s) THEN 0 ELSE Len(s.pending)

(* What a promise rests on. An acknowledgement rests on the entries too.                                     *)
Rest(s, m) ==
  IF m.type = "AppendReply" /\ m.matches THEN Most(RestOfHardState(s), RestOfLog(s, m.index))
  ELSE RestOfHardState(s)

WithWrite(old, s) ==
  IF <<s.term, s.vote, s.log>> = <<old.term, old.vote, old.log>> THEN s
  ELSE [s EXCEPT !.pending = Append(@, [term |-> s.term, vote |-> s.vote, log |-> s.log])]

-----------------------------------------------------------------------------
(* Messages: src/domain/message.rs. Rounds, sessions and promises of time serve leases and reads only.       *)

PreVoteRequest(i, j, s) ==
  [type |-> "PreVote", from |-> i, to |-> j, asked |-> s.term + 1, last |-> LastId(s.log)]
PreVoteReply(i, m, s, granted) ==
  [type |-> "PreVoteReply", from |-> i, to |-> m.from, term |-> s.term, asked |-> m.asked, granted |-> granted]
VoteRequest(i, j, s) ==
  [type |-> "Vote", from |-> i, to |-> j, term |-> s.term, last |-> LastId(s.log)]
VoteReply(i, m, s, granted) ==
  [type |-> "VoteReply", from |-> i, to |-> m.from, term |-> s.term, asked |-> m.term, granted |-> granted]
Matched(i, m, s, index) ==
  [type |-> "AppendReply", from |-> i, to |-> m.from, term |-> s.term, matches |-> TRUE, index |-> index,
   hint |-> Id(<<>>, 0)]
Missing(i, m, s, index, hint) ==
  [type |-> "AppendReply", from |-> i, to |-> m.from, term |-> s.term, matches |-> FALSE, index |-> index,
   hint |-> hint]

-----------------------------------------------------------------------------
(* One server's state, and what becomes of it in a step: src/domain/raft.rs.                                 *)
(* `yes` are those who have granted a (pre-)vote. `progress` is what a leader knows of each follower         *)
(* (src/domain/progress.rs): `next` is the entry to send next, everything up to `match` is durable there,    *)
(* and where the logs part is being probed, or is known and it is sent ahead ("replicate"), or what it lacks *)
(* is forgotten here ("snapshot").                                                                           *)

NoProgress == [j \in Server |-> [next |-> 1, match |-> 0, mode |-> "probe"]]

Fresh == [
  term |-> 0, vote |-> Nobody, role |-> "follower", yes |-> {}, log |-> <<>>, base |-> 0, commit |-> 0,
  progress |-> NoProgress, disk |-> [term |-> 0, vote |-> Nobody, log |-> <<>>], pending |-> <<>>, held |-> {},
  snap |-> <<>>]

NoHistory == [leaders |-> {}, committed |-> {}]

Init ==
  /\ node = [i \in Server |-> Fresh]
  /\ messages = {}
  /\ snapshots = {}
  /\ history = NoHistory

(* RaftCore::follow in election.rs.                                                                          *)
Follow(s, t) ==
  [s EXCEPT !.term = t, !.vote = IF t > s.term THEN Nobody ELSE s.vote, !.role = "follower", !.yes = {},
            !.progress = NoProgress]

SeenTerm(s, t) == IF t > s.term THEN Follow(s, t) ELSE s

(* RaftCore::campaign (§3.4): the own vote is counted, and others are asked for theirs, once it is durable.  *)
Campaigns(i, s) == [s EXCEPT !.term = @ + 1, !.vote = i, !.role = "candidate", !.yes = {}, !.progress = NoProgress]

(* RaftCore::lead: the first entry of a new leader is a no-op (§6.4), or, of the very first, the founding    *)
(* membership (docs/decisions/0006).                                                                         *)
FirstEntry(s) ==
  IF ConfigIndex(s.log, Len(s.log)) = 0 THEN Entry(s.term, 0, Founding) ELSE Entry(s.term, 0, NoConfig)

Leads(i, s) ==
  [s EXCEPT !.role = "leader", !.yes = {}, !.log = Append(@, FirstEntry(s)),
            !.progress = [j \in Server |-> [next |-> Len(s.log) + 1, match |-> 0, mode |-> "probe"]]]

(* Whether a leader may take an entry for committed by counting: only one of its own term (§3.6.2).          *)
CountsForCommit(s, k) == s.log[k].term = s.term

(* Up to where a server holds the leader's log, as the leader knows it: of itself what is durable.           *)
Holds(i, s, j) == IF j = i THEN Durable(s) ELSE s.progress[j].match

(* RaftCore::advance_commit (§3.5, §3.6.2).                                                                  *)
Advanced(i, s) ==
  LET c == Config(s)
      held == [j \in Server |-> Holds(i, s, j)]
      reached == {k \in s.commit + 1 .. Len(s.log) :
                    CountsForCommit(s, k) /\ IsQuorum(c, {j \in Server : held[j] >= k})}
  IN IF reached = {} THEN s ELSE [s EXCEPT !.commit = Max(reached)]

(* What follows at once from any step: a won pre-vote begins a campaign, a candidate counts its own vote     *)
(* when that is durable, a won election makes a leader, what a quorum holds is committed.                    *)
OwnVote(i, s) == IF s.role = "candidate" /\ HardStateIsDurable(s) THEN [s EXCEPT !.yes = @ \cup {i}] ELSE s

Settled(i, s) ==
  LET c == Config(s)
      t == OwnVote(i, s)
  IN CASE s.role = "precandidate" -> IF IsQuorum(c, s.yes) THEN Campaigns(i, s) ELSE s
       [] s.role = "candidate" -> IF i \in t.yes /\ IsQuorum(c, t.yes) THEN Leads(i, t) ELSE t
       [] s.role = "leader" -> Advanced(i, s)
       [] OTHER -> s

Electorate(i, s) == {j \in Server \ {i} : IsVoter(Config(s), j)}

Requests(i, old, s) ==
  IF s.role = "candidate" /\ s.term # old.term THEN {VoteRequest(i, j, s) : j \in Electorate(i, s)} ELSE {}

(* The past, for the invariants: who led, and what leaders took for committed, by which membership.          *)
Remembered(i, old, s) ==
  LET c == Config(s) IN [
    leaders |-> history.leaders \cup (IF s.role = "leader" /\ old.role # "leader" THEN {<<s.term, i>>} ELSE {}),
    committed |-> history.committed \cup
      (IF s.role # "leader" THEN {}
       ELSE {[index |-> k, entry |-> s.log[k], term |-> s.term, config |-> c] : k \in old.commit + 1 .. s.commit})]

(* What a server does in a step: its state becomes `now` and what follows from that. What it promises leaves *)
(* when it is durable, what it says without promising anything leaves at once.                               *)
Out(now, promise, say) == [now |-> now, promise |-> promise, say |-> say]
Silent(now) == Out(now, {}, {})

After(i, old, out) ==
  LET settled == Settled(i, out.now)
      new == WithWrite(old, settled)
      due == {[rest |-> Rest(new, m), message |-> m] : m \in out.promise \cup Requests(i, old, new)}
  IN [now |-> [new EXCEPT !.held = @ \cup {h \in due : h.rest > 0}],
      said |-> out.say \cup {h.message : h \in {g \in due : g.rest = 0}},
      past |-> Remembered(i, old, new)]

(* What changes nothing is no step.                                                                          *)
IsStep(before, out) == out.now # before \/ out.promise # {} \/ ~(out.say \subseteq messages)

(* `\E x \in {e}` is LET x == e; so written a checker computes e once.                                       *)
Does(i, out) ==
  \E before \in {node[i]} : \E wanted \in {out} :
    /\ IsStep(before, wanted)
    /\ \E after \in {After(i, before, wanted)} :
         /\ node' = [node EXCEPT ![i] = after.now]
         /\ messages' = messages \cup after.said
         /\ history' = after.past
         /\ UNCHANGED snapshots

-----------------------------------------------------------------------------
(* Disks work, and processes end.                                                                            *)

(* The first n of the writes on their way are durable, and the server hears of it: RaftCore::on_persisted.   *)
(* The promises that rest on them leave, but for those of a past term.                                       *)
Persisted(s, n) ==
  LET due == {h \in s.held : h.rest <= n /\ h.message.term = s.term}
      kept == {[h EXCEPT !.rest = @ - n] : h \in {g \in s.held : g.rest > n}}
  IN Out([s EXCEPT !.disk = s.pending[n], !.pending = SubSeq(@, n + 1, Len(@)), !.held = kept], {},
         {h.message : h \in due})

Persist(i, n) == n \in 1 .. Len(node[i].pending) /\ Does(i, Persisted(node[i], n))

(* The process ends and comes again, with what its disk has: RaftCore::new. Of the writes on their way the   *)
(* first n had been done, and nobody heard of it. The commit index is a hint in the writes; what of it was   *)
(* found again is c.                                                                                         *)
Found(s, n) ==
  LET write == IF n = 0 THEN s.disk ELSE s.pending[n]
      log == Recovered(write, s.snap)
      term == Most(write.term, TermAt(log, Len(log)))
      vote == IF term > write.term THEN Nobody ELSE write.vote
  IN [Fresh EXCEPT !.term = term, !.vote = vote, !.log = log, !.base = Len(s.snap), !.snap = s.snap,
                   !.disk = [term |-> term, vote |-> vote, log |-> log]]

Restart(i, n, c) ==
  /\ n \in 0 .. Len(node[i].pending)
  /\ \E found \in {Found(node[i], n)} :
       /\ c \in found.base .. Most(found.base, Least(node[i].commit, Len(found.log)))
       /\ node' = [node EXCEPT ![i] = [found EXCEPT !.commit = c]]
  /\ UNCHANGED <<messages, snapshots, history>>

-----------------------------------------------------------------------------
(* Elections (§3.4, §9.6): src/domain/election.rs.                                                           *)

(* RaftCore::is_promotable: a voter of the membership in force, or of the committed one while that in force  *)
(* is not committed (§4.2.2).                                                                                *)
IsPromotable(i, s) ==
  \/ IsVoter(Config(s), i)
  \/ ConfigIndex(s.log, Len(s.log)) > s.commit /\ IsVoter(ConfigAt(s.log, s.commit), i)

(* RaftCore::pre_campaign: an election timeout has passed. It asks whether it could win, and changes nothing.*)
PreCampaign(i) ==
  LET s == node[i] IN
  /\ s.role # "leader"
  /\ IsPromotable(i, s)
  /\ Does(i, Out([s EXCEPT !.role = "precandidate", !.yes = {i}, !.progress = NoProgress], {},
                 {PreVoteRequest(i, j, s) : j \in Electorate(i, s)}))

(* As if everybody had answered a pre-vote with yes: more than can happen, for models without pre-votes.     *)
Campaign(i) ==
  LET s == node[i] IN
  /\ s.role # "leader"
  /\ IsPromotable(i, s)
  /\ Does(i, Silent(Campaigns(i, s)))

(* A leader that hears no quorum, that is to stop or that has retired; a candidate that was refused.         *)
StepDown(i) ==
  LET s == node[i] IN
  /\ s.role # "follower"
  /\ Does(i, Silent(Follow(s, s.term)))

IsUpToDate(m, s) == IsAtLeast(m.last, LastId(s.log))

(* RaftCore::on_pre_vote. Whoever heard a leader of late refuses, which is a matter of time: `granted` may   *)
(* be FALSE whenever it likes.                                                                               *)
MayPreGrant(m, s) == m.asked > s.term /\ IsUpToDate(m, s)

HandlePreVote(i, m, granted) ==
  LET s == node[i] IN
  /\ granted => MayPreGrant(m, s)
  /\ Does(i, Out(s, {}, {PreVoteReply(i, m, s, granted)}))

(* RaftCore::on_pre_vote_reply: a refusal in a higher term tells of that term.                               *)
OnPreVoteReply(s, m) ==
  IF m.granted \/ m.term <= s.term
  THEN IF s.role = "precandidate" /\ m.asked = s.term + 1 /\ m.granted THEN [s EXCEPT !.yes = @ \cup {m.from}] ELSE s
  ELSE SeenTerm(s, m.term)

(* RaftCore::on_vote (§3.4, §3.6.1). Whoever heard a leader of late does not even look at it (§4.2.3): a     *)
(* message that never comes.                                                                                 *)
MayGrant(m, s) == m.term = s.term /\ s.vote \in {Nobody, m.from} /\ IsUpToDate(m, s)

OnVote(i, old, m, granted) ==
  LET s == SeenTerm(old, m.term)
      t == IF granted THEN [s EXCEPT !.vote = m.from] ELSE s
  IN Out(t, {VoteReply(i, m, t, granted)}, {})

HandleVote(i, m, granted) ==
  /\ granted => \E s \in {SeenTerm(node[i], m.term)} : MayGrant(m, s)
  /\ Does(i, OnVote(i, node[i], m, granted))

(* RaftCore::on_vote_reply.                                                                                  *)
OnVoteReply(old, m) ==
  LET s == SeenTerm(old, m.term) IN
  IF m.asked = s.term /\ s.role = "candidate" /\ m.term = s.term /\ m.granted THEN [s EXCEPT !.yes = @ \cup {m.from}]
  ELSE s

(* RaftCore::on_timeout_now (§3.10): told by its leader to campaign at once.                                 *)
OnTimeoutNow(i, old, m) ==
  LET s == SeenTerm(old, m.term) IN
  IF s.role = "follower" /\ IsPromotable(i, s) /\ m.term = old.term THEN Campaigns(i, s) ELSE s

-----------------------------------------------------------------------------
(* The leader's side of replication (§3.5): src/domain/replication.rs, src/domain/progress.rs.               *)

(* Input::Propose.                                                                                           *)
Propose(i, command) ==
  LET s == node[i] IN
  /\ s.role = "leader"
  /\ Does(i, Silent([s EXCEPT !.log = Append(@, Entry(s.term, command, NoConfig))]))

(* The next n entries, or none: a heartbeat. Who follows is sent more without waiting; who is being probed   *)
(* is sent the same until it has answered.                                                                   *)
AppendTo(i, j, s, n) ==
  LET p == s.progress[j]
      message == [type |-> "Append", from |-> i, to |-> j, term |-> s.term, prev |-> Id(s.log, p.next - 1),
                  entries |-> SubSeq(s.log, p.next, p.next - 1 + n), commit |-> s.commit]
      next == IF p.mode = "replicate" THEN p.next + n ELSE p.next
  IN Out([s EXCEPT !.progress[j].next = next], {}, {message})

SendAppend(i, j, n) ==
  LET s == node[i]
      p == s.progress[j]
  IN /\ s.role = "leader"
     /\ p.mode # "snapshot"
     /\ s.base < p.next /\ p.next - 1 + n <= Len(s.log)
     /\ j # i
     /\ Does(i, AppendTo(i, j, s, n))

Probe(p, next) == [p EXCEPT !.mode = "probe", !.next = Most(next, p.match + 1)]

(* RaftCore::on_matched: everything up to there is durable on the follower.                                  *)
OnMatched(s, p, index) ==
  LET q == [p EXCEPT !.match = Most(@, index), !.next = Most(@, index + 1)]
  IN IF p.mode = "probe" /\ index >= p.next - 1 THEN [q EXCEPT !.mode = "replicate"]
     ELSE IF p.mode = "snapshot" /\ index >= s.base THEN Probe(q, index + 1)
     ELSE q

(* RaftCore::on_missing: where the logs part is further back.                                                *)
OnMissing(s, p, m) ==
  LET here == m.hint.index >= s.base /\ m.hint.index <= Len(s.log) /\ TermAt(s.log, m.hint.index) = m.hint.term
      asked == p.mode = "replicate" \/ (p.mode = "probe" /\ m.index = p.next - 1)
      bound == Least(m.hint.index, IF m.index = 0 THEN 0 ELSE m.index - 1)
      agreed == IF bound < s.base THEN bound ELSE LastAtMost(s, bound, m.hint.term)
  IN IF p.mode = "snapshot" THEN IF here THEN Probe(p, m.hint.index + 1) ELSE p
     ELSE IF asked /\ m.index > p.match THEN Probe(p, agreed + 1)
     ELSE p

OnAppendReply(i, old, m) ==
  LET s == SeenTerm(old, m.term)
      p == s.progress[m.from]
      q == IF ~m.matches THEN OnMissing(s, p, m) ELSE IF m.index <= Len(s.log) THEN OnMatched(s, p, m.index) ELSE p
  IN IF s.role = "leader" /\ m.term = s.term THEN [s EXCEPT !.progress[m.from] = q] ELSE s

(* RaftCore::on_unreachable, on_snapshot_failed: the follower has to be asked anew where it is.              *)
Reprobe(i, j) ==
  LET s == node[i] IN
  /\ s.role = "leader"
  /\ s.progress[j].mode # "probe"
  /\ Does(i, Silent([s EXCEPT !.progress[j] = Probe(s.progress[j], s.progress[j].match + 1)]))

(* transfer.rs (§3.10): a voter that has everything is told to campaign.                                     *)
SendTimeoutNow(i, j) ==
  LET s == node[i] IN
  /\ s.role = "leader"
  /\ j # i
  /\ s.progress[j].match = Len(s.log) /\ s.progress[j].mode = "replicate"
  /\ j \in Config(s).voters
  /\ Does(i, Out(s, {}, {[type |-> "TimeoutNow", from |-> i, to |-> j, term |-> s.term]}))

-----------------------------------------------------------------------------
(* The follower's side of replication.                                                                       *)

(* RaftCore::take_in: only a real conflict cuts the log.                                                     *)
TakenIn(s, prev, entries) ==
  LET new == {x \in 1 .. Len(entries) : ~Covers(s, [term |-> entries[x].term, index |-> prev + x])}
  IN IF new = {} THEN s.log
     ELSE SubSeq(s.log, 1, prev + Min(new) - 1) \o SubSeq(entries, Min(new), Len(entries))

(* RaftCore::on_append, answer_stale. Entries are acknowledged when they are durable; a heartbeat at once,   *)
(* with what is.                                                                                             *)
Appended(i, s, m) ==
  LET last == m.prev.index + Len(m.entries)
      matched == IF m.entries = <<>> THEN Least(last, Durable(s)) ELSE last
      t == [s EXCEPT !.log = TakenIn(s, m.prev.index, m.entries), !.commit = Most(@, Least(m.commit, last))]
  IN Out(t, {Matched(i, m, t, matched)}, {})

NotThere(i, s, m) ==
  LET before == IF m.prev.index = 0 THEN 0 ELSE m.prev.index - 1
      hint == LastAtMost(s, before, m.prev.term)
  IN Out(s, {Missing(i, m, s, m.prev.index, Id(s.log, hint))}, {})

OnAppend(i, old, m) ==
  IF m.term < old.term THEN Out(old, {Missing(i, m, old, m.prev.index, LastId(old.log))}, {})
  ELSE LET s == Follow(old, m.term) IN IF Covers(s, m.prev) THEN Appended(i, s, m) ELSE NotThere(i, s, m)

-----------------------------------------------------------------------------
(* Changing the membership (§4): src/domain/reconfiguration.rs.                                              *)

(* The membership in force is committed, as a leader knows by an entry of its own term: without that, two    *)
(* leaders could each change the same one with quorums that do not meet (the error of 2015).                 *)
IsCertain(s) == ConfigIndex(s.log, Len(s.log)) <= s.commit /\ TermAt(s.log, s.commit) = s.term

(* Who has what was there when this leader came: only they are given a vote, and a quorum of the next        *)
(* membership must be such.                                                                                  *)
IsFilled(i, s, j) == j = i \/ s.progress[j].match >= Min({k \in 1 .. Len(s.log) : s.log[k].term = s.term})

CanCarry(i, s, c) ==
  LET now == Config(s)
      filled == {j \in Server : IsFilled(i, s, j)}
  IN MayBecome(now, c) /\ IsQuorum(c, filled) /\ \A j \in c.voters : IsVoter(now, j) \/ j \in filled

(* Newcomers are asked where they are: track_members in leader.rs.                                           *)
Reformed(s, c) ==
  LET known == Members(Config(s)) \cup Members(ConfigAt(s.log, s.commit))
      new == [next |-> Len(s.log) + 2, match |-> 0, mode |-> "probe"]
  IN [s EXCEPT !.log = Append(@, Entry(s.term, 0, c)),
               !.progress = [j \in Server |-> IF j \in Members(c) \ known THEN new ELSE s.progress[j]]]

ChangeMembership(i, c) ==
  LET s == node[i] IN
  /\ s.role = "leader"
  /\ ConfigIndex(s.log, Len(s.log)) > 0
  /\ IsCertain(s)
  /\ CanCarry(i, s, c)
  /\ Does(i, Silent(Reformed(s, c)))

(* A joint membership that is committed is left at once (§4.3): who voted in its outgoing half only is a     *)
(* learner from then on, or gone, as its target says (docs/decisions/0009).                                  *)
LeaveJoint(i, learners) ==
  LET s == node[i]
      c == Config(s)
  IN /\ s.role = "leader"
     /\ IsJoint(c)
     /\ IsCertain(s)
     /\ learners \subseteq c.learners \cup (c.outgoing \ c.voters)
     /\ c.learners \subseteq learners
     /\ Does(i, Silent([s EXCEPT !.log =
                Append(@, Entry(s.term, 0, [voters |-> c.voters, outgoing |-> {}, learners |-> learners]))]))

-----------------------------------------------------------------------------
(* Snapshots (§5): src/domain/snapshotting.rs, src/domain/retention.rs, docs/decisions/0011.                 *)

(* The machine's state at an applied entry is durable as a file. Entries are applied when they are committed *)
(* and durable here.                                                                                         *)
Applicable(s) == Least(s.commit, Durable(s))

TakeSnapshot(i, k) ==
  \E s \in {node[i]} : \E snap \in {SubSeq(node[i].log, 1, k)} :
     /\ k \in Len(s.snap) + 1 .. Applicable(s)
     /\ node' = [node EXCEPT ![i].snap = snap]
     /\ snapshots' = snapshots \cup {snap}
     /\ UNCHANGED <<messages, history>>

(* RaftCore::shorten: the log forgets what the snapshot covers, or less.                                     *)
Compact(i, k) ==
  LET s == node[i] IN
  /\ k \in s.base + 1 .. Least(Len(s.snap), s.commit)
  /\ Does(i, Silent([s EXCEPT !.base = k]))

(* RaftCore::replicate_to: what the follower lacks is forgotten here, so it is offered a snapshot.           *)
OfferSnapshot(i, j, k) ==
  LET s == node[i]
      p == s.progress[j]
  IN /\ s.role = "leader"
     /\ p.mode = "snapshot" \/ p.next <= s.base
     /\ k \in s.base .. Len(s.snap)
     /\ j # i
     /\ Does(i, Out([s EXCEPT !.progress[j].mode = "snapshot"], {},
                    {[type |-> "Snapshot", from |-> i, to |-> j, term |-> s.term, last |-> Id(s.log, k)]}))

(* RaftCore::on_snapshot_offer, answer_stale.                                                                *)
OnSnapshot(i, old, m) ==
  LET s == Follow(old, Most(old.term, m.term))
      here == m.last.index <= s.commit \/ Covers(s, m.last)
  IN IF m.term < old.term THEN Out(old, {Missing(i, m, old, m.last.index, LastId(old.log))}, {})
     ELSE IF here THEN Out(s, {Matched(i, m, s, Least(m.last.index, Durable(s)))}, {})
     ELSE Out(s, {Missing(i, m, s, m.last.index, LastId(s.log))}, {})

(* All of an offered snapshot, or of a newer one, is here: verified, durable and in its place.               *)
FetchSnapshot(i, snap) ==
  /\ Len(snap) > Len(node[i].snap)
  /\ \E m \in messages : m.type = "Snapshot" /\ m.to = i /\ m.last.index <= Len(snap)
  /\ node' = [node EXCEPT ![i].snap = snap]
  /\ UNCHANGED <<messages, snapshots, history>>

(* RaftCore::on_snapshot_installed: the machine is restored, now the log follows. One that leads past the    *)
(* snapshot keeps what comes after it; any other is let go whole. No write is needed but for a term. What    *)
(* disagrees with an entry that is committed here, or with a leader's log, is a breach.                      *)
Installed(old, k) ==
  LET snap == SubSeq(old.snap, 1, k)
      s == SeenTerm(old, TermAt(snap, k))
      new == IF Covers(s, Id(snap, k)) THEN [s EXCEPT !.commit = Most(@, k), !.base = Most(@, k)]
             ELSE [s EXCEPT !.log = snap, !.commit = k, !.base = k]
  IN IF s.term = old.term THEN new
     ELSE [new EXCEPT !.pending = Append(@, [term |-> new.term, vote |-> new.vote, log |-> new.log])]

AgreesWithSnapshot(s, k) ==
  Covers(s, Id(s.snap, k)) \/ (k > s.commit /\ (s.role # "leader" \/ TermAt(s.snap, k) > s.term))

InstallSnapshot(i, k) ==
  /\ k \in node[i].base + 1 .. Len(node[i].snap)
  /\ AgreesWithSnapshot(node[i], k)
  /\ \E new \in {Installed(node[i], k)} : node' = [node EXCEPT ![i] = new]
  /\ UNCHANGED <<messages, snapshots, history>>

-----------------------------------------------------------------------------
(* RaftCore::on_message. Messages of a past term are void, but for those that are answered with the present  *)
(* one.                                                                                                      *)
Receive(i, m) ==
  /\ m.to = i
  /\ CASE m.type = "PreVote" -> HandlePreVote(i, m, MayPreGrant(m, node[i]))
       [] m.type = "PreVoteReply" -> Does(i, Silent(OnPreVoteReply(node[i], m)))
       [] m.type = "Vote" -> \E granted \in {LET s == SeenTerm(node[i], m.term) IN MayGrant(m, s)} :
                               HandleVote(i, m, granted)
       [] m.type = "Append" -> Does(i, OnAppend(i, node[i], m))
       [] m.type = "Snapshot" -> Does(i, OnSnapshot(i, node[i], m))
       [] m.type = "VoteReply" -> Does(i, Silent(OnVoteReply(node[i], m)))
       [] m.type = "AppendReply" -> Does(i, Silent(OnAppendReply(i, node[i], m)))
       [] m.type = "TimeoutNow" -> Does(i, Silent(OnTimeoutNow(i, node[i], m)))

(* A pre-vote or a vote is refused because a leader was heard of late.                                       *)
Refuse(i, m) ==
  /\ m.to = i
  /\ \/ m.type = "PreVote" /\ HandlePreVote(i, m, FALSE)
     \/ m.type = "Vote" /\ HandleVote(i, m, FALSE)

Next ==
  \E i \in Server :
    \/ \E m \in messages : Receive(i, m)
    \/ \E m \in messages : Refuse(i, m)
    \/ \E n \in 1 .. Len(node[i].pending) : Persist(i, n)
    \/ \E n \in 0 .. Len(node[i].pending), c \in Len(node[i].snap) .. node[i].commit : Restart(i, n, c)
    \/ PreCampaign(i)
    \/ StepDown(i)
    \/ \E command \in Command : Propose(i, command)
    \/ \E j \in Server, n \in 0 .. Len(node[i].log) : SendAppend(i, j, n)
    \/ \E j \in Server : Reprobe(i, j) \/ SendTimeoutNow(i, j)
    \/ \E v, l, o \in SUBSET Server :
         ChangeMembership(i, [voters |-> v, outgoing |-> o, learners |-> l \ (v \cup o)])
    \/ \E learners \in SUBSET Server : LeaveJoint(i, learners)
    \/ \E k \in 1 .. Len(node[i].log) : TakeSnapshot(i, k) \/ Compact(i, k)
    \/ \E j \in Server, k \in 0 .. Len(node[i].snap) : OfferSnapshot(i, j, k)
    \/ \E snap \in snapshots : FetchSnapshot(i, snap)
    \/ \E k \in 1 .. Len(node[i].snap) : InstallSnapshot(i, k)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What holds in every state.                                                                                *)

(* At most one leader can be elected in a given term (figure 3.2).                                           *)
ElectionSafety == \A a, b \in history.leaders : a[1] = b[1] => a[2] = b[2]

Logs == {node[i].log : i \in Server} \cup {Recovered(node[i].disk, node[i].snap) : i \in Server}

(* If two logs contain an entry with the same index and term, they are identical up to it (figure 3.2).      *)
LogMatching ==
  \A a, b \in Logs : \A k \in 1 .. Least(Len(a), Len(b)) :
    a[k].term = b[k].term => SubSeq(a, 1, k) = SubSeq(b, 1, k)

(* An entry committed in a term is in the logs of the leaders of all later terms (figure 3.2).               *)
LeaderCompleteness ==
  \A c \in history.committed, i \in Server :
    node[i].role = "leader" /\ node[i].term > c.term =>
      Len(node[i].log) >= c.index /\ node[i].log[c.index] = c.entry

(* What one server takes for committed at an index, and so may apply there, is what was committed there, and *)
(* nothing else ever was (figure 3.2).                                                                       *)
StateMachineSafety ==
  /\ \A a, b \in history.committed : a.index = b.index => a.entry = b.entry
  /\ \A i \in Server : \A k \in 1 .. node[i].commit :
       \E c \in history.committed : c.index = k /\ c.entry = node[i].log[k]

(* From when it is committed an entry is durable, on the disks, on a quorum of the membership that decided.  *)
IsOnDisk(i, c) ==
  LET log == Recovered(node[i].disk, node[i].snap) IN Len(log) >= c.index /\ log[c.index] = c.entry
Decides(c, S) ==
  /\ 2 * Cardinality(S \cap c.voters) > Cardinality(c.voters)
  /\ c.outgoing = {} \/ 2 * Cardinality(S \cap c.outgoing) > Cardinality(c.outgoing)
CommittedIsDurable ==
  \A c \in history.committed : Decides(c.config, {i \in Server : IsOnDisk(i, c)})

(* A vote that was given is on the disk of who gave it, and so is the term in which anything is promised.    *)
PromisesAreKept ==
  \A m \in messages : LET disk == node[m.from].disk IN
    CASE m.type = "VoteReply" -> disk.term >= m.term /\ (m.granted /\ disk.term = m.term => disk.vote = m.to)
      [] m.type = "Vote" -> disk.term >= m.term /\ (disk.term = m.term => disk.vote = m.from)
      [] m.type = "AppendReply" -> disk.term >= m.term
      [] OTHER -> TRUE

(* What a leader takes for durable on a follower is, for as long as that has not promised itself to another. *)
MatchIsDurable ==
  \A i, j \in Server :
    LET s == node[i] IN
    s.role = "leader" /\ i # j /\ node[j].disk.term = s.term =>
      Agreed(s.log, Recovered(node[j].disk, node[j].snap)) >= s.progress[j].match

(* Every snapshot is of committed entries, and none is behind what a log has forgotten.                      *)
SnapshotsAreCommitted ==
  /\ \A snap \in snapshots : \A k \in 1 .. Len(snap) :
       \E c \in history.committed : c.index = k /\ c.entry = snap[k]
  /\ \A i \in Server : node[i].base <= Len(node[i].snap) /\ node[i].base <= node[i].commit

(* Nobody sees what cannot be: the breaches of step.rs, at which a server falls silent.                      *)
NoBreach ==
  /\ \A m \in messages :
       m.type \in {"Append", "Snapshot"} => ~(node[m.to].role = "leader" /\ node[m.to].term = m.term)
  /\ \A i \in Server : \A k \in node[i].base + 1 .. Len(node[i].snap) : AgreesWithSnapshot(node[i], k)

TypeOK ==
  \A i \in Server : LET s == node[i] IN
    /\ s.role \in {"follower", "precandidate", "candidate", "leader"}
    /\ s.vote \in Server \cup {Nobody}
    /\ s.base <= s.commit /\ s.commit <= Len(s.log)
    /\ \A h \in s.held : h.rest \in 1 .. Len(s.pending)
    /\ s.disk.term <= s.term
=============================================================================
