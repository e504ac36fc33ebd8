//! What stages take of the machine while they compute: cores, memory, devices. Those that wait for it stand in a queue.
//!
//! `--jobs` says how many stages of a run compute at a time, and one whose setting `cores` says four counts as four. The
//! memory that they say they need is no more, together, than the machine has. A GPU is one stage's at a time. Who asks for
//! more than there is computes alone: a pipeline runs on a smaller machine, too.
//!
//! Stages begin in the order in which they came. One that does not fit holds back those behind it, or small ones might
//! overtake it for ever; one that waits for a GPU holds back those that want the same. No result depends on any of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::kind::Device;

/// What a stage takes while it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// How many it counts as.
    pub(crate) cores: usize,
    /// Bytes.
    pub(crate) memory: u64,
    /// Where it computes.
    pub(crate) device: Device,
}

/// Tasks that wait for the machine, and what those take that have begun.
pub(crate) struct Queue<T> {
    cores: usize,
    memory: u64,
    came: u64,
    /// By the device that they want, each with when it came.
    waiting: BTreeMap<Device, VecDeque<Waiting<T>>>,
    taken: BTreeMap<usize, Demand>,
    told: BTreeSet<usize>,
}

struct Waiting<T> {
    came: u64,
    stage: usize,
    demand: Demand,
    task: T,
}

/// A stage waits for something that others have: which, and what for.
pub(crate) type Told = (usize, String);

impl<T> Queue<T> {
    /// For a machine with so many cores, and so many bytes of memory.
    pub(crate) const fn new(cores: usize, memory: u64) -> Self {
        Self {
            cores,
            memory,
            came: 0,
            waiting: BTreeMap::new(),
            taken: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Adds a stage's task at the end.
    pub(crate) fn push(&mut self, stage: usize, demand: Demand, task: T) {
        let cores = match demand.memory > self.memory {
            true => self.cores,
            false => demand.cores.clamp(1, self.cores),
        };
        let demand = Demand {
            cores,
            memory: demand.memory.min(self.memory),
            ..demand
        };
        self.came += 1;
        let waiting = Waiting {
            came: self.came,
            stage,
            demand,
            task,
        };
        let queue = self.waiting.entry(demand.device).or_default();
        queue.push_back(waiting);
    }

    /// The next task that may begin: from now on it has what it takes. Tells once of each stage that would be next but
    /// for memory or a device.
    pub(crate) fn pop(&mut self, tell: &mut dyn FnMut(Told)) -> Option<T> {
        let taken = self.taken.values();
        let cores = self.cores - taken.clone().map(|demand| demand.cores).sum::<usize>();
        let memory = self.memory - taken.clone().map(|demand| demand.memory).sum::<u64>();
        if cores == 0 {
            return None;
        }
        let devices: BTreeSet<Device> = taken.map(|demand| demand.device).collect();
        let mut next: Option<&Waiting<T>> = None;
        for first in self.waiting.values().filter_map(VecDeque::front) {
            let device = first.demand.device;
            if device != Device::Cpu && devices.contains(&device) {
                if self.told.insert(first.stage) {
                    tell((first.stage, format!("another stage has {device}")));
                }
            } else if next.is_none_or(|next| first.came < next.came) {
                next = Some(first);
            }
        }
        let Waiting { stage, demand, .. } = next?;
        let (stage, demand) = (*stage, *demand);
        if demand.memory > memory {
            if self.told.insert(stage) {
                tell((
                    stage,
                    "other stages have the memory that it needs".to_owned(),
                ));
            }
            return None;
        }
        if demand.cores > cores {
            return None;
        }
        let first = self.waiting.get_mut(&demand.device)?.pop_front()?;
        self.taken.insert(stage, demand);
        Some(first.task)
    }

    /// A stage needs nothing more of what it has taken.
    pub(crate) fn give_back(&mut self, stage: usize) {
        self.taken.remove(&stage);
    }

    /// Forgets those that wait.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CPU: Demand = Demand {
        cores: 1,
        memory: 0,
        device: Device::Cpu,
    };

    /// A queue for four cores and 100 bytes, with these demands.
    fn queue(demands: &[Demand]) -> Queue<usize> {
        let mut queue = Queue::new(4, 100);
        for (stage, demand) in demands.iter().enumerate() {
            queue.push(stage, *demand, stage);
        }
        queue
    }

    /// All that may begin, and what is told.
    fn begin(queue: &mut Queue<usize>) -> (Vec<usize>, Vec<Told>) {
        let (mut begun, mut told) = (Vec::new(), Vec::new());
        while let Some(stage) = queue.pop(&mut |what| told.push(what)) {
            begun.push(stage);
        }
        (begun, told)
    }

    #[test]
    fn as_many_begin_as_there_are_cores_in_their_order() {
        let wide = Demand { cores: 3, ..CPU };
        let mut queue = queue(&[CPU, wide, wide, CPU, CPU]);
        assert_eq!(begin(&mut queue), (vec![0, 1], vec![]));
        queue.give_back(0);
        assert_eq!(begin(&mut queue).0, [0; 0], "the small ones wait behind");
        queue.give_back(1);
        assert_eq!(begin(&mut queue).0, [2, 3]);
    }

    #[test]
    fn memory_is_shared_and_who_wants_more_than_there_is_is_alone() {
        let half = Demand { memory: 50, ..CPU };
        let giant = Demand { memory: 101, ..CPU };
        let mut queue = queue(&[half, half, half, giant, CPU]);
        let (begun, told) = begin(&mut queue);
        assert_eq!(begun, [0, 1]);
        assert_eq!(
            told,
            [(2, "other stages have the memory that it needs".to_owned())]
        );
        queue.give_back(1);
        assert_eq!(begin(&mut queue).0, [2]);
        queue.give_back(0);
        queue.give_back(2);
        assert_eq!(begin(&mut queue), (vec![3], vec![]));
        queue.give_back(3);
        assert_eq!(begin(&mut queue).0, [4]);
    }

    #[test]
    fn a_device_is_one_stages_and_the_others_overtake_who_waits_for_it() {
        let on = |number| Demand {
            device: Device::Cuda(number),
            ..CPU
        };
        let mut queue = queue(&[on(0), on(0), CPU, on(1), on(0)]);
        let (begun, told) = begin(&mut queue);
        assert_eq!(begun, [0, 2, 3]);
        assert_eq!(told, [(1, "another stage has cuda:0".to_owned())]);
        assert_eq!(begin(&mut queue), (vec![], vec![]), "it is told once");
        queue.give_back(0);
        assert_eq!(begin(&mut queue).0, [1]);
    }

    proptest! {
        #[test]
        fn nobody_waits_for_ever_and_nobody_has_too_much(
            demands in prop::collection::vec((0_usize..9, 0_u64..200, 0_usize..3), 1..40),
        ) {
            let demands: Vec<Demand> = demands
                .into_iter()
                .map(|(cores, memory, device)| Demand {
                    cores,
                    memory,
                    device: [Device::Cpu, Device::Cuda(0), Device::Cuda(1)][device],
                })
                .collect();
            let mut queue = queue(&demands);
            let mut ended = BTreeSet::new();
            while ended.len() < demands.len() {
                begin(&mut queue);
                let taken = &queue.taken;
                prop_assert!(!taken.is_empty());
                prop_assert!(taken.values().map(|demand| demand.cores).sum::<usize>() <= 4);
                prop_assert!(taken.values().map(|demand| demand.memory).sum::<u64>() <= 100);
                let gpus = taken.values().filter(|demand| demand.device != Device::Cpu);
                let gpus: Vec<Device> = gpus.map(|demand| demand.device).collect();
                prop_assert_eq!(gpus.iter().collect::<BTreeSet<_>>().len(), gpus.len());
                let last = *taken.keys().next_back().expect("not empty");
                queue.give_back(last);
                ended.insert(last);
            }
        }
    }
}
