//! The operator of a domain: when it runs, how long, and what it says.

use super::*;

impl Live {
    /// Starts the operator, which renders by its resolv.conf, and lets it go on.
    pub(in crate::stage::nodeless) async fn start_operator(&mut self) -> Result<(), NoEnvironment> {
        let Some(deployment) = &self.domain.operator else { return Ok(()) };
        let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        self.started = seconds_now();
        if let Some(operator) = &self.plane.operator {
            let spec = template.spec.unwrap_or_default();
            operator.pod.set_resolv_conf(&self.kubelet().resolv_conf(OPERATOR_NAMESPACE, &spec)).await?;
            operator.pod.start_again().await?;
        } else {
            let name = deployment.metadata.name.clone().unwrap_or_default();
            self.plane.operator = Some(self.kubelet().start(OPERATOR_NAMESPACE, &name, &template).await?);
        }
        self.write_statuses();
        Ok(())
    }

    fn write_statuses(&mut self) {
        let (client, running) = (self.plane.client.clone(), self.running.clone());
        self.statuses.spawn(statuses::write(client, move || {
            running.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }));
    }

    /// Lets the operator rest: it has rendered what is looked at, and two cores carry several control planes only where
    /// not all of their operators are busy.
    pub(in crate::stage::nodeless) async fn rest(&mut self) {
        self.statuses.shutdown().await;
        if let Some(operator) = &self.plane.operator {
            operator.pod.stop().await;
        }
    }

    /// Lets the operator go on until it has rendered all that it was asked for, then brings the pods up to date.
    pub(in crate::stage::nodeless) async fn end_rendering(
        &mut self,
        statuses: &[String],
        patience: Duration,
    ) -> Result<(), LookError> {
        let Some(operator) = self.plane.operator.as_ref().filter(|_| !self.ended) else { return Ok(()) };
        operator.pod.start_again().await.map_err(LookError::while_("starting the operator again"))?;
        self.write_statuses();
        let calico = Calico::new(self.plane.client.clone());
        let ended = calico.rendering_ended(statuses, patience).await;
        self.rest().await;
        ended?;
        self.ended = true;
        let teller = Teller::silent();
        let watch = Watch { deadline: Instant::now() + patience, teller: &teller };
        self.roll(watch).await.map_err(LookError::while_("starting what was rendered anew"))
    }

    pub(super) async fn operator_crashes(&self) -> Option<String> {
        let operator = self.plane.operator.as_ref()?;
        for (name, id) in operator.pod.containers() {
            let state = self.domain.engine.state(id).await.ok()??;
            if state.restarts >= CRASHES {
                return Some(format!(
                    "container {name} ended {} times, last with {}",
                    state.restarts, state.exit_code
                ));
            }
        }
        None
    }

    /// The last complaint in the operator's log.
    pub(super) async fn operator_says(&self) -> String {
        let Some(operator) = &self.plane.operator else { return String::new() };
        for (_, id) in operator.pod.containers() {
            let log = self.domain.engine.logs(id, self.started).await.unwrap_or_default();
            let complaint = log.lines().rev().find(|line| {
                line.contains("\"level\":\"error\"") || line.contains("panic") || line.contains("forbidden")
            });
            if let Some(line) = complaint {
                let line: String = line.chars().take(300).collect();
                return format!("; the operator says: {line}");
            }
        }
        String::new()
    }
}
