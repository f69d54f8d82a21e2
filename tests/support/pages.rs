//! The code of the README and of the guide. `cargo test -p tlr-tests --doc` compiles and runs it.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/guide/examples.md")]
struct Examples;

#[doc = include_str!("../../docs/guide/first-model.md")]
struct FirstModel;

#[doc = include_str!("../../docs/guide/from-pytorch.md")]
struct FromPytorch;

#[doc = include_str!("../../docs/guide/gpu.md")]
struct Gpu;

#[doc = include_str!("../../docs/guide/gradients.md")]
struct Gradients;

#[doc = include_str!("../../docs/guide/history.md")]
struct History;

#[doc = include_str!("../../docs/guide/memory.md")]
struct Memory;

#[doc = include_str!("../../docs/guide/mixed-precision.md")]
struct MixedPrecision;

#[doc = include_str!("../../docs/guide/more-than-one-machine.md")]
struct MoreThanOneMachine;

#[doc = include_str!("../../docs/guide/paper.md")]
struct Paper;

#[doc = include_str!("../../docs/guide/rate-a-layer.md")]
struct RateALayer;

#[doc = include_str!("../../docs/guide/saving.md")]
struct Saving;

#[doc = include_str!("../../docs/guide/schedules.md")]
struct Schedules;

#[doc = include_str!("../../docs/guide/what-can-go-wrong.md")]
struct WhatCanGoWrong;

#[doc = include_str!("../../docs/guide/your-own-optimizer.md")]
struct YourOwnOptimizer;
