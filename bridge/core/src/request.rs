//! What tools ask of one group, and when they are answered. The states are in [`crate::service`].

use alloc::vec::Vec;

use crate::action::{Action, Refusal, Reply, Waiting};
use crate::effects::Effects;
use crate::event::{Begin, Finding, OpError};
use crate::group::Group;
use crate::service::{Moved, Service};
use crate::timer::Timer;
use crate::types::{ClientId, OpId, RequestId, ServiceName};

/// The most services that one group may have on one node.
pub(crate) const SERVICES_MAX: usize = 1024;

impl Group {
    pub(crate) fn begin(&mut self, begin: &Begin, fx: &mut Effects<'_>) {
        let request = begin.request;
        let mismatch = matches!((self.device, begin.device), (Some(a), Some(b)) if a != b);
        let refusal = if self.expelled {
            Some(Refusal::Expelled)
        } else if self.is_closing() && !self.services.is_empty() && !self.lane.is_held() {
            Some(Refusal::Busy)
        } else if mismatch {
            Some(Refusal::DeviceMismatch)
        } else if self.services.len() >= SERVICES_MAX {
            Some(Refusal::TooMany { what: "services of one group", max: SERVICES_MAX })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return fx.reply(request, Reply::Refused(refusal));
        }
        self.device = self.device.or(begin.device);
        let name = &begin.service;
        self.give_up_leave(name, fx);
        if let Some(service) = self.services.get_mut(name) {
            let kind = service.begin_again(name.is_ocfs2(), begin.client, begin.held);
            if matches!(service, Service::Additional { held: false, .. }) {
                let complete_ms = fx.tunables.complete_timeout_ms;
                fx.arm(Timer::Complete(self.id, name.clone()), complete_ms);
            }
            return fx.reply(request, kind.into());
        }
        let (client, held) = (begin.client, begin.held);
        self.services.insert(name.clone(), Service::Beginning { request, client, held });
        fx.arm(Timer::Begin(self.id, name.clone()), fx.tunables.begin_timeout_ms);
    }

    /// The kernel does not let the group go, and the service is wanted again: its leave is over.
    fn give_up_leave(&mut self, name: &ServiceName, fx: &mut Effects<'_>) {
        let Some(Service::Leaving { request }) = self.services.get(name).copied() else { return };
        if self.lane.is_held() {
            self.services.remove(name);
            fx.cancel(&Timer::Leave(self.id, name.clone()));
            if let Some(request) = request {
                fx.reply(request, Reply::Refused(Refusal::TimedOut(Waiting::Shim("detach"))));
            }
        }
    }

    pub(crate) fn complete(
        &mut self,
        name: &ServiceName,
        request: RequestId,
        (client, code): (ClientId, i32),
        fx: &mut Effects<'_>,
    ) {
        let Some(service) = self.services.get_mut(name) else {
            return fx.reply(request, Reply::Refused(Refusal::NotBegun));
        };
        let moved = service.complete(request, client, code);
        self.follow(name, moved, fx);
    }

    pub(crate) fn leave(&mut self, name: &ServiceName, request: RequestId, fx: &mut Effects<'_>) {
        let Some(service) = self.services.get_mut(name) else {
            return fx.reply(request, Reply::Refused(Refusal::NoService));
        };
        let moved = service.leave(request);
        self.follow(name, moved, fx);
    }

    pub(crate) fn client_gone(&mut self, client: ClientId, fx: &mut Effects<'_>) {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let before = *service;
            let moved = service.client_gone(client);
            // The timers of services that this client has nothing to do with run on.
            if moved != Moved::Quietly || *service != before {
                self.follow(&name, moved, fx);
            }
        }
    }

    /// Does what a move asks for, and keeps the timers in line with the state.
    fn follow(&mut self, name: &ServiceName, moved: Moved, fx: &mut Effects<'_>) {
        match moved {
            Moved::Quietly => {}
            Moved::Answer(request, kind) => return fx.reply(request, kind.into()),
            Moved::Look => self.look(name, fx),
        }
        match self.services.get(name) {
            Some(Service::Leaving { request }) => {
                fx.cancel(&Timer::Begin(self.id, name.clone()));
                fx.cancel(&Timer::Complete(self.id, name.clone()));
                if request.is_some() {
                    fx.arm(Timer::Leave(self.id, name.clone()), fx.tunables.leave_timeout_ms);
                }
            }
            Some(Service::Completing { .. } | Service::Live | Service::Looking { .. }) => {
                fx.cancel(&Timer::Complete(self.id, name.clone()));
            }
            Some(
                Service::Beginning { .. } | Service::Granted { .. } | Service::Additional { .. },
            )
            | None => {}
        }
    }

    /// Asks the mount table about a service whose tool cannot be asked.
    pub(crate) fn look(&mut self, name: &ServiceName, fx: &mut Effects<'_>) {
        let op = fx.op();
        self.services.insert(name.clone(), Service::Looking { op });
        fx.push(Action::Look { op, group: self.id, service: name.clone(), device: self.device });
    }

    pub(crate) fn looked(&mut self, op: OpId, finding: Finding) {
        for service in self.services.values_mut() {
            service.looked(op, finding);
        }
    }

    pub(crate) fn begin_overdue(&mut self, name: &ServiceName, why: Waiting, fx: &mut Effects<'_>) {
        if let Some(Service::Beginning { request, .. }) = self.services.get(name).copied() {
            fx.reply(request, Reply::Refused(Refusal::TimedOut(why)));
            self.services.insert(name.clone(), Service::Leaving { request: None });
        }
    }

    /// A tool that a predecessor told to go ahead may still complete, on a connection of its own.
    pub(crate) fn inherit(&mut self, name: &ServiceName, fx: &mut Effects<'_>) {
        let granted = Service::Granted { client: ClientId(0), held: false };
        self.services.insert(name.clone(), granted);
        let complete_ms = fx.tunables.complete_timeout_ms;
        fx.arm(Timer::Complete(self.id, name.clone()), complete_ms);
    }

    /// A tool that mounts nothing cannot be found in the mount table, and nobody saw it die: its
    /// service stays until somebody ends it.
    pub(crate) fn complete_overdue(&mut self, name: &ServiceName, fx: &mut Effects<'_>) {
        if !name.is_mount() {
            if let Some(service @ Service::Granted { .. }) = self.services.get_mut(name) {
                *service = Service::Live;
            }
        }
        if let Some(moved) = self.services.get_mut(name).map(Service::complete_overdue) {
            self.follow(name, moved, fx);
        }
    }

    pub(crate) fn leave_overdue(&mut self, name: &ServiceName, why: Waiting, fx: &mut Effects<'_>) {
        if let Some(Service::Leaving { request }) = self.services.get_mut(name) {
            if let Some(request) = request.take() {
                fx.reply(request, Reply::Refused(Refusal::TimedOut(why)));
            }
        }
    }

    /// Refuses everyone who has not been told to go ahead.
    pub(crate) fn refuse_beginners(&mut self, refusal: &Refusal, fx: &mut Effects<'_>) {
        for (name, service) in &mut self.services {
            if let Service::Beginning { request, .. } = *service {
                fx.cancel(&Timer::Begin(self.id, name.clone()));
                fx.reply(request, Reply::Refused(refusal.clone()));
                *service = Service::Leaving { request: None };
            }
        }
    }

    pub(crate) fn refuse_failed(
        &mut self,
        what: &'static str,
        error: OpError,
        fx: &mut Effects<'_>,
    ) {
        match what {
            "attach" | "save" => self.refuse_beginners(&Refusal::Failed { what, error }, fx),
            _ => {}
        }
    }

    /// Answers those whose wish came true. `saved`: a successor would find the services as they are.
    pub(crate) fn settle_services(&mut self, ready: bool, saved: bool, fx: &mut Effects<'_>) {
        let id = self.id;
        let closing = self.is_closing();
        self.services.retain(|name, service| {
            match *service {
                Service::Beginning { request, client, held } if ready => {
                    fx.cancel(&Timer::Begin(id, name.clone()));
                    if !held {
                        let complete_ms = fx.tunables.complete_timeout_ms;
                        fx.arm(Timer::Complete(id, name.clone()), complete_ms);
                    }
                    fx.reply(request, Reply::Done);
                    *service = Service::Granted { client, held };
                }
                Service::Completing { request } if saved => {
                    fx.reply(request, Reply::Done);
                    *service = Service::Live;
                }
                Service::Leaving { request } if saved && !closing => {
                    fx.cancel(&Timer::Leave(id, name.clone()));
                    if let Some(request) = request {
                        fx.reply(request, Reply::Done);
                    }
                    return false;
                }
                Service::Beginning { .. }
                | Service::Granted { .. }
                | Service::Completing { .. }
                | Service::Live
                | Service::Additional { .. }
                | Service::Looking { .. }
                | Service::Leaving { .. } => {}
            }
            true
        });
    }

    /// The group is gone: answers its last leavers.
    pub(crate) fn answer_leavers(&mut self, fx: &mut Effects<'_>) {
        for (name, service) in core::mem::take(&mut self.services) {
            if let Service::Leaving { request: Some(request) } = service {
                fx.cancel(&Timer::Leave(self.id, name));
                fx.reply(request, Reply::Done);
            }
        }
    }
}
