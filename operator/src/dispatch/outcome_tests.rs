use super::*;

fn run(idempotent: bool) -> Run {
    Run {
        id: "u-1".to_owned(),
        org: OrgId { name: "acme".to_owned(), uid: "o-1".to_owned() },
        namespace: "acme".to_owned(),
        tool: ("acme".to_owned(), "pay".to_owned()),
        container: polity_api::tool::Container::default(),
        output_schema: json!({"type": "object", "required": ["id"]}).as_object().cloned(),
        timeout_seconds: 5,
        idempotent,
        input: json!({}),
        reserve: Amounts::from([("calls".to_owned(), 1)]),
        call: None,
        trace: String::new(),
        obligations: None,
    }
}

fn result(exit_code: i32, stdout: &str) -> ShimOutput {
    ShimOutput { exit_code, stdout: stdout.to_owned(), stderr_tail: "oops".to_owned(), timed_out: false, too_large: false }
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
}

#[test]
fn a_good_result_is_kept_and_a_bad_one_says_why() {
    let cases = [
        (0, r#"{"id": 1}"#, ""),
        (0, r#"{"no": 1}"#, reasons::INVALID_RESULT),
        (0, "not json", reasons::INVALID_RESULT),
        (3, r#"{"id": 1}"#, reasons::TOOL_FAILED),
    ];
    for (code, stdout, reason) in cases {
        let settle = posted(&run(false), &result(code, stdout));
        assert_eq!((settle.reason.as_str(), settle.outcome), (reason, Some(Outcome::Done)), "{stdout}");
        assert_eq!(settle.result.is_some(), reason.is_empty());
        assert_eq!(settle.facts.contains_key("stderrTail"), code != 0, "stderr is kept of failures only");
    }
}

#[test]
fn too_much_is_refused_but_counts_as_done() {
    let text = format!(r#"{{"id": "{}"}}"#, "x".repeat(names::MAX_INLINE_RESULT));
    let settle = posted(&run(false), &result(0, &text));
    assert_eq!((settle.reason.as_str(), settle.outcome), (reasons::RESULT_TOO_LARGE, Some(Outcome::Done)));
    assert_eq!(settle.used.get("calls"), Some(&1));
    let killed = ShimOutput { too_large: true, ..result(137, "") };
    assert_eq!(posted(&run(false), &killed).reason, reasons::RESULT_TOO_LARGE, "the shim kills a tool that writes too much");
}

#[test]
fn a_tool_stopped_in_the_middle_is_unknown_unless_it_may_run_twice() {
    let stopped = ShimOutput { timed_out: true, ..result(-1, "") };
    assert_eq!(posted(&run(false), &stopped).outcome, Some(Outcome::Unknown));
    assert_eq!(posted(&run(true), &stopped).outcome, Some(Outcome::NotDone));
}

#[test]
fn a_pod_that_never_started_its_tool_did_nothing() {
    let waiting = pod(
        &json!({"phase": "Pending", "containerStatuses": [{"name": "tool", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no such image"}}}]}),
    );
    assert!(hopeless(&waiting));
    let settle = lost(&run(false), Some(&waiting), false, "the Pod did not start");
    assert_eq!(settle.outcome, Some(Outcome::NotDone));
    assert!(settle.message.contains("ErrImageNeverPull no such image"), "{}", settle.message);
    assert!(settle.used.is_empty());
    let given = canceled(&run(false), Some(&waiting), true);
    assert_eq!(given.outcome, Some(Outcome::Unknown), "it had its input: the status is behind");
    // As a kubelet leaves it when the time of a Pod is over whose image it could not get.
    let never = |id: &str| {
        let ended = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": null, "finishedAt": null}});
        pod(&json!({"phase": "Failed", "message": "too late", "containerStatuses": [{"name": "tool", "image": "", "imageID": "",
            "containerID": id, "ready": false, "restartCount": 0, "state": ended}]}))
    };
    let settle = lost(&run(false), Some(&never("")), false, "the Pod ended");
    assert_eq!((settle.outcome, settle.message.contains("too late")), (Some(Outcome::NotDone), true), "{}", settle.message);
    assert_eq!(
        lost(&run(false), Some(&never("containerd://1")), false, "gone").outcome,
        Some(Outcome::Unknown),
        "it was made, so it may have run"
    );
    let ran = pod(
        &json!({"phase": "Failed", "containerStatuses": [{"name": "tool", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
    );
    assert_eq!(lost(&run(false), Some(&ran), false, "gone").outcome, Some(Outcome::Unknown));
    assert_eq!(lost(&run(false), None, false, "gone").outcome, Some(Outcome::Unknown), "a Pod that cannot be seen may have run");
}

#[test]
fn an_image_that_cannot_be_got_is_given_up_after_a_while() {
    let at = |reason: &str, bound: &str| {
        pod(
            &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": bound, "lastTransitionTime": "2026-11-21T00:00:00Z"}],
            "containerStatuses": [{"name": "tool", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "no such host"}}}]}),
        )
    };
    let (early, late): (Timestamp, Timestamp) = ("2026-11-21T00:00:29Z".parse().unwrap(), "2026-11-21T00:00:30Z".parse().unwrap());
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        assert!(!no_image(&at(reason, "True"), early), "a registry may stumble");
        assert!(no_image(&at(reason, "True"), late), "{reason}");
        assert!(!no_image(&at(reason, "False"), late), "not bound: nothing was tried");
    }
    assert!(!no_image(&at("ContainerCreating", "True"), late), "a large image may take its time");
    let settle = lost(&run(false), Some(&at("ImagePullBackOff", "True")), false, "the tool's image cannot be got");
    assert_eq!((settle.outcome, settle.reason.as_str()), (Some(Outcome::NotDone), reasons::TOOL_FAILED));
    assert!(settle.message.contains("ImagePullBackOff no such host"), "{}", settle.message);
}
