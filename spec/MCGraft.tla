------------------------------ MODULE MCGraft ------------------------------
(* Small models of Graft, and models of what is wrong on purpose, which a checker must find. The files in    *)
(* spec/models say which; `make tla` runs them all.                                                          *)
EXTENDS Graft, TLC

CONSTANTS
  n1, n2, n3,
  Voters,      \* Who votes in the founding membership.
  Lazy,        \* Whose disks take their time. The others' are done before anything else happens.
  Candidates,  \* Who may campaign.
  AsksFirst,   \* Campaigns begin with pre-votes.
  OneByOne,    \* An append carries one entry at most.
  MaxTerm, Timeouts, Commands, Crashes, Changes, Snapshots

(* What may still happen.                                                                                    *)
VARIABLE left

mcvars == <<vars, left>>

All == [voters |-> Voters, outgoing |-> {}, learners |-> Server \ Voters]
Symmetry == Permutations(Server)

Spend(what) == left[what] > 0 /\ left' = [left EXCEPT ![what] = @ - 1]
Free == UNCHANGED left

Budget == [timeouts |-> Timeouts, commands |-> Commands, crashes |-> Crashes, changes |-> Changes,
           snapshots |-> Snapshots]

(* Nothing has happened yet.                                                                                 *)
FromNothing == Init /\ left = Budget

(* n1 leads term 1; the founding entry is committed and durable with everybody.                              *)
Has(log, term, vote) == [Fresh EXCEPT
  !.term = term, !.vote = vote, !.log = log, !.disk = [term |-> term, vote |-> vote, log |-> log]]
Founded == <<Entry(1, 0, All)>>
Member == [Has(Founded, 1, n1) EXCEPT !.commit = 1]
Known(next, match) == [j \in Server |-> [next |-> next, match |-> match, mode |-> "replicate"]]
Leader == [Member EXCEPT !.role = "leader", !.progress = Known(2, 1)]
Past == [leaders |-> {<<1, n1>>}, committed |-> {[index |-> 1, entry |-> Founded[1], term |-> 1, config |-> All]}]

FromLeader ==
  /\ node = [i \in Server |-> IF i = n1 THEN Leader ELSE Member]
  /\ messages = {} /\ snapshots = {} /\ history = Past /\ left = Budget

(* The same, and a command is committed that n2 lacks: n1 and n3 have it.                                    *)
Asked == Append(Founded, Entry(1, 1, NoConfig))
FromBehind ==
  /\ node = [i \in Server |->
       IF i = n1 THEN [Leader EXCEPT !.log = Asked, !.commit = 2, !.disk.log = Asked,
                         !.progress = [Known(3, 2) EXCEPT ![n2] = [next |-> 2, match |-> 1, mode |-> "probe"]]]
       ELSE IF i = n2 THEN Member
       ELSE [Has(Asked, 1, n1) EXCEPT !.commit = 2]]
  /\ messages = {} /\ snapshots = {} /\ left = Budget
  /\ history = [Past EXCEPT !.committed = @ \cup
                 {[index |-> 2, entry |-> Asked[2], term |-> 1, config |-> All]}]

(* Figure 3.7 of the thesis after its part b, one term on: an entry of term 2 is on n1 and, since n1 leads   *)
(* again, in term 4, on its way to n3; an entry of term 3 stands in its place on n2.                         *)
Old(t) == Append(Founded, Entry(t, 0, NoConfig))
FromFigure ==
  /\ node = [i \in Server |->
       IF i = n1 THEN [Has(Append(Old(2), Entry(4, 0, NoConfig)), 4, n1) EXCEPT
                         !.commit = 1, !.role = "leader",
                         !.progress = [Known(3, 1) EXCEPT ![n3] = [next |-> 2, match |-> 1, mode |-> "probe"]]]
       ELSE IF i = n2 THEN [Has(Old(3), 3, n2) EXCEPT !.commit = 1]
       ELSE [Has(Founded, 4, n1) EXCEPT !.commit = 1]]
  /\ messages = {} /\ snapshots = {} /\ left = Budget
  /\ history = [Past EXCEPT !.leaders = @ \cup {<<2, n1>>, <<3, n2>>, <<4, n1>>}]

(* n3, a learner, takes the place of n2 in one step.                                                         *)
Exchange == [voters |-> {n1, n3}, outgoing |-> {n1, n2}, learners |-> {}]

RECURSIVE Happens(_), Sends(_, _), Stands(_)

IsEager(i) == i \notin Lazy /\ node[i].pending # <<>>

Stands(i) ==
  /\ i \in Candidates
  /\ node[i].term < MaxTerm
  /\ IF AsksFirst THEN PreCampaign(i) ELSE Campaign(i)
  /\ Spend("timeouts")

Sends(i, j) ==
  LET s == node[i]
      most == IF OneByOne THEN 1 ELSE Len(s.log)
  IN
  /\ s.role = "leader"
  /\ \/ /\ s.progress[j].next <= Len(s.log) + 1
        /\ SendAppend(i, j, Least(most, Len(s.log) + 1 - s.progress[j].next))
     \/ s.base > 0 /\ OfferSnapshot(i, j, Len(s.snap))
  /\ Free

Happens(i) ==
  \/ \E m \in messages : Receive(i, m) /\ Free
  \/ \E n \in 1 .. Len(node[i].pending) : Persist(i, n) /\ Free
  \/ Stands(i)
  \/ \E j \in Server \ {i} : Sends(i, j)
  \/ Propose(i, Commands - left.commands + 1) /\ Spend("commands")
  \/ \E n \in 0 .. Len(node[i].pending) : Restart(i, n, Len(node[i].snap)) /\ Spend("crashes")
  \/ ChangeMembership(i, Exchange) /\ Spend("changes")
  \/ node[i].role = "leader" /\ LeaveJoint(i, Config(node[i]).learners) /\ Free
  \/ \E k \in 1 .. Len(node[i].log) : TakeSnapshot(i, k) /\ Spend("snapshots")
  \/ \E k \in 1 .. Len(node[i].snap) : Compact(i, k) /\ Free
  \/ \E snap \in snapshots : FetchSnapshot(i, snap) /\ Free
  \/ \E k \in 1 .. Len(node[i].snap) : InstallSnapshot(i, k) /\ Free

MCNext ==
  IF \E i \in Server : IsEager(i)
  THEN \E i \in {CHOOSE i \in Server : IsEager(i)} : Persist(i, Len(node[i].pending)) /\ Free
  ELSE \E i \in Server : Happens(i)

-----------------------------------------------------------------------------
(* What has to be reached for a model to mean anything.                                                      *)
SecondLeader == Cardinality(history.leaders) > 1
Committed == \E c \in history.committed : c.entry.command > 0
LeftJoint == \E c \in history.committed : c.entry.config.voters = {n1, n3} /\ ~IsJoint(c.entry.config)
Installs == \E i \in Server : node[i].base > 0 /\ node[i].role # "leader"
CutAway == \E i \in Server : \E m \in messages : m.type = "Snapshot" /\ m.to = i /\ node[i].base = m.last.index

-----------------------------------------------------------------------------
(* What is wrong on purpose: a configuration puts one of these in the place of what is right.                *)

NothingRests(s, m) == 0                       \* for Rest: promises leave before they are durable
NoLogRests(s, k) == 0                         \* for RestOfLog: entries are acknowledged before they are durable
InMemory(i, s, j) == IF j = i THEN Len(s.log) ELSE s.progress[j].match \* for Holds: a leader counts what is not durable
AnyTerm(s, k) == TRUE                         \* for CountsForCommit: a prior term's entry is committed by counting
Half(S, voters) == 2 * Cardinality(S \cap voters) >= Cardinality(voters) \* for Majority
IncomingAlone(c, S) == Majority(S, c.voters)  \* for IsQuorum: one half of a joint membership decides
AnyLog(m, s) == TRUE                          \* for IsUpToDate: a vote does not ask for the log
VoteAgain(m, s) == m.term = s.term /\ IsUpToDate(m, s) \* for MayGrant: two votes in a term
Always(s) == TRUE                             \* for IsCertain: a membership follows one that is not committed
AnyEntry(s) == Len(s.log)                     \* for Applicable: a snapshot of what is not committed
=============================================================================
