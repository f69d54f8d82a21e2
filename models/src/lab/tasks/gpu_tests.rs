//! Tasks on a GPU, beside the CPU.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    lab::{contenders, tasks, Folders, Place, Scale},
    train::TrainError,
};

/// Fails if a task learns other things on a GPU, if its results there count as the CPU's, or if
/// what only the CPU can do is begun there.
#[test]
#[ignore = "gpu"]
fn gpu_tasks_learn_what_the_cpu_learns() {
    let (tasks, contenders) = (tasks(), contenders());
    let contender = |name: &str| contenders.iter().find(|one| one.name == name).unwrap();
    let open = |name: &str, place| {
        let task = tasks.iter().find(|task| task.name == name).unwrap();
        task.open_at(&Folders::default(), Scale::Smoke, place).unwrap()
    };
    for name in ["mnist-mlp", "copying"] {
        let [cpu, gpu] = [Place::Cpu, Place::Gpu].map(|place| open(name, place).unwrap());
        assert_eq!(gpu.data(), cpu.data() + ", on a GPU");
        let learns = contender("tlr-momentum");
        assert!(learns.on_gpu());
        let [cpu, by_gpu] = [&cpu, &gpu].map(|ready| ready.train(learns, 1, &|_, _| ()).unwrap());
        assert_eq!((by_gpu.steps, by_gpu.memory), (cpu.steps, cpu.memory));
        for (ours, theirs) in by_gpu.points.iter().zip(&cpu.points) {
            let (ours, theirs) = (ours.loss.unwrap(), theirs.loss.unwrap());
            assert!((ours - theirs).abs() < 1e-3 * theirs, "{name}: {ours} for {theirs}");
        }
        let peer = contender("dog");
        assert!(!peer.on_gpu());
        let refused = gpu.train(peer, 1, &|_, _| ());
        assert!(matches!(refused, Err(TrainError::PeersOnCpu)), "{refused:?}");
    }
    assert!(open("heavy-tails", Place::Gpu).is_none());
}
