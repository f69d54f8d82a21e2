//! What the derives accept, and what they say to what they do not.
#![cfg(feature = "dfdx")]

/// Programs that must compile: modules here, so that dfdx need not be built once more.
#[path = "ui/pass"]
mod pass {
    mod in_function;
    mod private_parts;
    mod shadowed;

    #[test]
    fn a_model_inside_a_function() {
        assert_eq!(in_function::names(), ["linear"]);
    }
}

/// The derives' own errors.
#[test]
fn errors() {
    trybuild::TestCases::new().compile_fail("tests/ui/fail/*.rs");
}

/// The compiler's errors about traits, with the texts that this crate gives it.
#[rustversion::attr(not(stable(1.95)), ignore = "the frame around them is another in each release")]
#[test]
fn errors_of_the_compiler() {
    trybuild::TestCases::new().compile_fail("tests/ui/rustc/*.rs");
}
