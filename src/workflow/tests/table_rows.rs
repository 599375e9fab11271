//! The tables: states to the left, commands on top. An event's kind, or `!` and the reason of the refusal.
//!
//! `paused`: `no`, a reason, or `yes` for any. `touched`: whether settings of a target may be others than before. States
//! that no log leads to have answers too: an answer never depends on luck.

/// What callers ask. `approve~` comes with the etag of another plan, `cancel!` acknowledges.
pub(super) const VERBS: &str = "
state                                  | paused | touched | approve       approve~      reject        pause        resume       cancel             cancel!            rollback
analysing planning                     | no     | no      | !PlanNotReady !PlanNotReady !PlanNotReady paused       !WrongStatus cancelled          cancelled          !NothingApplied
analysing planning                     | no     | yes     | !PlanNotReady !PlanNotReady !PlanNotReady paused       !WrongStatus rollback_started   rollback_started   rollback_started
awaiting_approval                      | no     | no      | approved      !PlanChanged  rejected      paused       !WrongStatus cancelled          cancelled          !NothingApplied
awaiting_approval                      | no     | yes     | approved      !PlanChanged  rejected      paused       !WrongStatus rollback_started   rollback_started   rollback_started
approved rolling_out                   | no     | no      | !WrongStatus  !WrongStatus  !WrongStatus  paused       !WrongStatus cancelled          cancelled          !NothingApplied
writing awaiting_ready measuring       | no     | no      | !WrongStatus  !WrongStatus  !WrongStatus  paused       !WrongStatus cancelled          cancelled          !NothingApplied
approved rolling_out                   | no     | yes     | !WrongStatus  !WrongStatus  !WrongStatus  paused       !WrongStatus rollback_started   rollback_started   rollback_started
writing awaiting_ready measuring       | no     | yes     | !WrongStatus  !WrongStatus  !WrongStatus  paused       !WrongStatus rollback_started   rollback_started   rollback_started
analysing planning awaiting_approval   | yes    | no      | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus resumed      cancelled          cancelled          !NothingApplied
analysing planning awaiting_approval   | yes    | yes     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus resumed      rollback_started   rollback_started   rollback_started
approved rolling_out                   | yes    | no      | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus resumed      cancelled          cancelled          !NothingApplied
writing awaiting_ready measuring       | yes    | no      | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus resumed      cancelled          cancelled          !NothingApplied
approved rolling_out                   | yes    | yes     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus resumed      rollback_started   rollback_started   rollback_started
writing awaiting_ready measuring       | yes    | yes     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus resumed      rollback_started   rollback_started   rollback_started
rolling_back restoring                 | no     | any     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !WrongStatus       !WrongStatus       !WrongStatus
awaiting_restored                      | no     | any     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !WrongStatus       !WrongStatus       !WrongStatus
completed                              | no     | no      | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !WrongStatus       !WrongStatus       !NothingApplied
completed                              | no     | yes     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !WrongStatus       !WrongStatus       rollback_started
rejected failed cancelled rolled_back  | no     | any     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !WrongStatus       !WrongStatus       !WrongStatus
rollback_failed                        | no     | no      | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !AcknowledgeNeeded cancelled          !NothingApplied
rollback_failed                        | no     | yes     | !WrongStatus  !WrongStatus  !WrongStatus  !WrongStatus !WrongStatus !AcknowledgeNeeded cancelled          rollback_started
";

/// What runners report. The time of a phase that has a deadline is over.
pub(super) const REPORTS: &str = "
state                                  | paused                     | touched | start analysed planned nothing_to_do intend          plan_outdated written  ready measured  drifted all_restored fail             time_over
analysing                              | no                         | no      | !Late analysed !Late   nothing_to_do !Late           !Late         !Late    !Late !Late     !Late   !Late        failed           failed
analysing                              | no                         | yes     | !Late analysed !Late   nothing_to_do !Late           !Late         !Late    !Late !Late     !Late   !Late        rollback_started rollback_started
planning                               | no                         | no      | !Late !Late    planned nothing_to_do !Late           !Late         !Late    !Late !Late     !Late   !Late        failed           failed
planning                               | no                         | yes     | !Late !Late    planned nothing_to_do !Late           !Late         !Late    !Late !Late     !Late   !Late        rollback_started rollback_started
awaiting_approval                      | no                         | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        failed           rejected
awaiting_approval                      | no                         | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        rollback_started rejected
approved                               | no                         | no      | !Late !Late    !Late   !Late         write_intended  plan_outdated !Late    !Late !Late     !Late   !Late        failed           !Late
approved                               | no                         | yes     | !Late !Late    !Late   !Late         write_intended  plan_outdated !Late    !Late !Late     !Late   !Late        rollback_started !Late
rolling_out                            | no                         | no      | !Late !Late    !Late   !Late         write_intended  !Late         !Late    !Late !Late     paused  !Late        failed           !Late
rolling_out                            | no                         | yes     | !Late !Late    !Late   !Late         write_intended  !Late         !Late    !Late !Late     paused  !Late        rollback_started !Late
writing                                | no                         | no      | !Late !Late    !Late   !Late         !Late           !Late         written  !Late !Late     paused  !Late        failed           failed
writing                                | no                         | yes     | !Late !Late    !Late   !Late         !Late           !Late         written  !Late !Late     paused  !Late        rollback_started rollback_started
writing                                | REQUESTED APPROVAL_TIMEOUT | no      | !Late !Late    !Late   !Late         !Late           !Late         written  !Late !Late     paused  !Late        failed           !Late
writing                                | REQUESTED APPROVAL_TIMEOUT | yes     | !Late !Late    !Late   !Late         !Late           !Late         written  !Late !Late     paused  !Late        rollback_started !Late
writing                                | DRIFT                      | no      | !Late !Late    !Late   !Late         !Late           !Late         written  !Late !Late     !Late   !Late        failed           !Late
writing                                | DRIFT                      | yes     | !Late !Late    !Late   !Late         !Late           !Late         written  !Late !Late     !Late   !Late        rollback_started !Late
awaiting_ready                         | no                         | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    ready !Late     paused  !Late        failed           failed
awaiting_ready                         | no                         | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    ready !Late     paused  !Late        rollback_started rollback_started
awaiting_ready                         | REQUESTED APPROVAL_TIMEOUT | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     paused  !Late        failed           !Late
awaiting_ready                         | REQUESTED APPROVAL_TIMEOUT | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     paused  !Late        rollback_started !Late
awaiting_ready                         | DRIFT                      | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        failed           !Late
awaiting_ready                         | DRIFT                      | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        rollback_started !Late
measuring                              | no                         | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late completed paused  !Late        failed           completed
measuring                              | no                         | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late completed paused  !Late        rollback_started completed
analysing planning awaiting_approval   | yes                        | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        failed           !Late
analysing planning awaiting_approval   | yes                        | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        rollback_started !Late
approved rolling_out measuring         | yes                        | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        failed           !Late
approved rolling_out measuring         | yes                        | yes     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        rollback_started !Late
rolling_back                           | no                         | no      | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   rolled_back  rollback_failed  rollback_failed
rolling_back                           | no                         | yes     | !Late !Late    !Late   !Late         restore_intended !Late        !Late    !Late !Late     !Late   !Late        rollback_failed  rollback_failed
restoring                              | no                         | any     | !Late !Late    !Late   !Late         !Late           !Late         restored !Late !Late     !Late   !Late        rollback_failed  rollback_failed
awaiting_restored                      | no                         | any     | !Late !Late    !Late   !Late         !Late           !Late         !Late    ready !Late     !Late   !Late        rollback_failed  rollback_failed
rejected completed failed cancelled    | no                         | any     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        !Late            !Late
rolled_back rollback_failed            | no                         | any     | !Late !Late    !Late   !Late         !Late           !Late         !Late    !Late !Late     !Late   !Late        !Late            !Late
";
