----------------------------- MODULE TraceGraft -----------------------------
(* Holds what happened in a simulated world against the specification: src/simulation/trace writes it down,  *)
(* line by line, from the replicas that ship.                                                                *)
(*                                                                                                           *)
(* Each line names an action of Graft and what it was told; the specification comes to the messages, the     *)
(* writes and the state by itself, and they have to be the ones that the line, or a later one, says. A line  *)
(* that is no action of the specification has no next state: a deadlock, in which `at` is the line.          *)
EXTENDS Graft, TLC

CONSTANT Trace

VARIABLE at

(* Instead of IsStep: in a trace something may be told that changes nothing.                                 *)
Anything(before, out) == TRUE

Same == UNCHANGED vars

(* What was told. A request may be ignored, or refused, because a leader was heard of late.                  *)
Told(line) ==
  LET i == line.node
      m == line.message
  IN /\ m \in messages
     /\ CASE line.how = "ignores" -> Same
          [] line.how = "refuses" -> Refuse(i, m)
          [] OTHER -> Receive(i, m)

(* What was said. Answers and requests for votes have been said already by the steps that led to them; what  *)
(* a leader sends of its own accord is a step.                                                               *)
Said(line) ==
  LET i == line.node
      m == line.message
  IN CASE m.type = "Append" ->
            SendAppend(i, m.to, Len(m.entries)) /\ m \in messages'
       [] m.type = "Snapshot" -> OfferSnapshot(i, m.to, m.last.index) /\ m \in messages'
       [] m.type = "TimeoutNow" -> SendTimeoutNow(i, m.to) /\ m \in messages'
       [] OTHER -> m \in messages /\ m.from = i /\ Same

(* What was seen of a node.                                                                                  *)
Seen(line) ==
  \E s \in {node[line.node]} :
    /\ s.term = line.term
    /\ s.vote = line.vote
    /\ s.role = line.role
    /\ s.commit = line.commit
    /\ s.base = line.base
    /\ LastId(s.log) = line.last
    /\ Durable(s) = line.durable
    /\ Same

(* What was handed to the disk: the end of the log, with the term and the vote.                              *)
Written(line) ==
  \E s \in {node[line.node]} :
    /\ s.term = line.term
    /\ s.vote = line.vote
    /\ line.entries # <<>> =>
         Len(s.log) >= line.first /\ SubSeq(s.log, line.first, Len(s.log)) = line.entries
    /\ Same

(* A snapshot is on the disk: made there, or fetched. Of one that is found at a start it is not known which. *)
Made(line) ==
  /\ line.last.index <= Len(node[line.node].log)
  /\ TakeSnapshot(line.node, line.last.index)
  /\ LastId(node'[line.node].snap) = line.last

Fetched(line) ==
  \E snap \in snapshots :
    Len(snap) = line.last.index /\ LastId(snap) = line.last /\ FetchSnapshot(line.node, snap)

Reprobed(line) ==
  IF node[line.node].role = "leader" /\ node[line.node].progress[line.peer].mode = "replicate"
  THEN Reprobe(line.node, line.peer) ELSE Same

Step(line) ==
  CASE line.event = "receive" -> Told(line)
    [] line.event = "send" -> Said(line)
    [] line.event = "look" -> Seen(line)
    [] line.event = "write" -> Written(line)
    [] line.event = "persist" -> Persist(line.node, line.done)
    [] line.event = "restart" -> Restart(line.node, line.done, line.commit)
    [] line.event = "timeout" -> PreCampaign(line.node)
    [] line.event = "stepdown" -> StepDown(line.node)
    [] line.event = "propose" -> Propose(line.node, line.entry.command)
    [] line.event = "change" -> ChangeMembership(line.node, line.config)
    [] line.event = "leave" -> line.config.outgoing = {} /\ LeaveJoint(line.node, line.config.learners)
    [] line.event = "snapshot" -> Made(line)
    [] line.event = "found" -> Made(line) \/ Fetched(line)
    [] line.event = "fetch" -> Fetched(line)
    [] line.event = "install" -> InstallSnapshot(line.node, line.index)
    [] line.event = "compact" -> Compact(line.node, line.index)
    [] line.event = "reprobe" -> Reprobed(line)

TraceInit == Init /\ at = 1

TraceNext ==
  \/ at <= Len(Trace) /\ at' = at + 1 /\ \E line \in {Trace[at]} : Step(line)
  \/ at > Len(Trace) /\ UNCHANGED <<vars, at>>
=============================================================================
