//! Which devices this machine has: what `auto` means here, and why a device that a pipeline names is not there.

use std::collections::BTreeSet;

use crate::check::stage_problem;
use crate::diagnostic::Diagnostic;
use crate::explain::{PlanReport, PlannedState};
use crate::kind::Device;
use crate::plan::{DeviceChoice, Plan, PlannedStage};

/// The devices beside the CPU, or why there are none. The program fills it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// How many CUDA devices there are.
    pub cuda: Result<usize, String>,
    /// Whether Apple's GPU is there.
    pub metal: Result<(), String>,
}

impl Default for Devices {
    /// The CPU alone.
    fn default() -> Self {
        let none = "no device but the CPU was looked for".to_owned();
        Self {
            cuda: Err(none.clone()),
            metal: Err(none),
        }
    }
}

impl Devices {
    /// What `auto` means.
    pub fn best(&self) -> Device {
        match (&self.cuda, &self.metal) {
            (Ok(1..), _) => Device::Cuda(0),
            (_, Ok(())) => Device::Metal,
            _ => Device::Cpu,
        }
    }

    /// Whether a device is there.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, device: Device) -> Result<(), String> {
        match (device, &self.cuda, &self.metal) {
            (Device::Cpu, ..) | (Device::Metal, _, Ok(())) => Ok(()),
            (Device::Metal, _, Err(reason)) | (Device::Cuda(_), Err(reason), _) => {
                Err(reason.clone())
            }
            (Device::Cuda(number), Ok(count), _) if number < *count => Ok(()),
            (Device::Cuda(_), Ok(0), _) => Err("this machine has none".to_owned()),
            (Device::Cuda(_), Ok(1), _) => Err("this machine has one, `cuda:0`".to_owned()),
            (Device::Cuda(_), Ok(count), _) => Err(format!(
                "this machine has {count}, `cuda:0` to `cuda:{}`",
                count - 1
            )),
        }
    }
}

/// What is wrong with the device that a stage would run on.
fn problem(
    stage: &PlannedStage,
    wished: Option<DeviceChoice>,
    devices: &Devices,
) -> Option<Diagnostic> {
    if !stage.kind.computes() {
        return None;
    }
    let device = match wished.unwrap_or(stage.settings.device) {
        DeviceChoice::Auto => devices.best(),
        DeviceChoice::This(device) => device,
    };
    if let Err(reason) = devices.check(device) {
        let (span, help) = match wished {
            None => (
                stage.settings.device_span,
                "write `device: auto` to take the best device that there is, or say another with `--device`",
            ),
            Some(_) => (None, "leave `--device` out, or say `--device auto`"),
        };
        let message = format!(
            "`{}` wants the device `{device}`, which is not there: {reason}",
            stage.stage
        );
        let span = span.unwrap_or(stage.span);
        return Some(Diagnostic::error("missing-device", span, message).help(help));
    }
    let error = stage.params.check_on(device).into_iter().next()?;
    Some(stage_problem(
        "unfit-device",
        stage.span,
        &stage.body,
        error,
    ))
}

/// Whether a stage of the plan has no device to run on, be it cached or not.
pub fn any_is_missing(plan: &Plan, wished: Option<DeviceChoice>, devices: &Devices) -> bool {
    let mut stages = plan.stages.iter();
    stages.any(|stage| problem(stage, wished, devices).is_some())
}

/// One diagnostic for each place that names a device on which a stage cannot run that has to. What is cached needs no
/// device.
pub fn missing(
    plan: &Plan,
    forecast: &PlanReport,
    wished: Option<DeviceChoice>,
    devices: &Devices,
) -> Vec<Diagnostic> {
    let to_run = forecast.stages.iter();
    let to_run = to_run.filter(|one| one.state != PlannedState::Cached);
    let to_run: BTreeSet<&str> = to_run.map(|one| one.name.as_str()).collect();
    let running = plan.stages.iter();
    let running = running.filter(|stage| to_run.contains(stage.name.as_str()));
    let mut problems: Vec<Diagnostic> = Vec::new();
    for problem in running.filter_map(|stage| problem(stage, wished, devices)) {
        if problems.iter().all(|other| other.span != problem.span) {
            problems.push(problem);
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_best_that_there_is() {
        let devices = |cuda, metal| Devices { cuda, metal };
        assert_eq!(Devices::default().best(), Device::Cpu);
        assert_eq!(devices(Ok(2), Ok(())).best(), Device::Cuda(0));
        assert_eq!(devices(Ok(0), Ok(())).best(), Device::Metal);
        assert_eq!(devices(Ok(0), Err(String::new())).best(), Device::Cpu);
    }

    #[test]
    fn a_device_that_is_not_there_says_which_are() {
        let devices = Devices {
            cuda: Ok(2),
            metal: Err("this program has no Metal in it".to_owned()),
        };
        assert_eq!(devices.check(Device::Cuda(1)), Ok(()));
        let reason = devices.check(Device::Cuda(2)).unwrap_err();
        assert_eq!(reason, "this machine has 2, `cuda:0` to `cuda:1`");
        let reason = devices.check(Device::Metal).unwrap_err();
        assert_eq!(reason, "this program has no Metal in it");
        assert_eq!(devices.check(Device::Cpu), Ok(()));
    }
}
