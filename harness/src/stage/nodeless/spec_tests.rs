//! What a kubelet would make of specifications, recorded and made up.

use std::net::Ipv4Addr;

use serde_json::json;

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 5));
const API: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2)), 6443);

fn identity() -> Identity {
    Identity {
        name: "goldmane-0".into(),
        namespace: "calico-system".into(),
        labels: BTreeMap::from([("k8s-app".to_owned(), "goldmane".to_owned())]),
        annotations: BTreeMap::new(),
        node: "catwalk".into(),
    }
}

fn sources() -> Sources {
    let of = |value: Value| serde_json::from_value(value).unwrap();
    Sources {
        config_maps: BTreeMap::from([(
            "settings".to_owned(),
            of(json!({"metadata": {"name": "settings"}, "data": {"A": "a", "file": "text"}})),
        )]),
        secrets: BTreeMap::from([(
            "pair".to_owned(),
            serde_json::from_value(
                json!({"metadata": {"name": "pair"}, "data": {"tls.key": "a2V5", "tls.crt": "Y3J0"}}),
            )
            .unwrap(),
        )]),
    }
}

struct Made {
    volumes: BTreeMap<String, Vec<VolumeFile>>,
    containers: Vec<Planned>,
    not_carried_out: BTreeSet<String>,
}

fn plan(spec: Value, mounts_parts: bool) -> Result<Made, NoEnvironment> {
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    let (identity, sources) = (identity(), sources());
    let account = Account { token: "token".into(), authority: "authority".into() };
    let mut planner = Planner {
        spec: &spec,
        identity: &identity,
        sources: &sources,
        account: Some(&account),
        mounts_parts,
        not_carried_out: BTreeSet::new(),
    };
    planner.note_what_is_left_out();
    let volumes = planner.volumes()?;
    let containers =
        spec.containers.iter().map(|c| planner.container(c, ADDRESS, API)).collect::<Result<_, _>>()?;
    Ok(Made { volumes, containers, not_carried_out: planner.not_carried_out })
}

fn one(container: Value) -> Planned {
    plan(json!({"containers": [container]}), true).unwrap().containers.remove(0)
}

#[test]
fn environment_is_that_of_a_kubelet() {
    let made = one(json!({
        "name": "c", "image": "i",
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"}, {"configMapRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "EMPTY"},
            {"name": "REFERS", "value": "$(PLAIN)-$(P_A)-$(NOBODY)-$$(PLAIN)"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['k8s-app']"}}},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "A"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "pair", "key": "tls.crt"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "B", "optional": true}}},
        ],
        "args": ["--ip=$(IP)"],
    }));
    let expected = [
        ("APP", "goldmane"),
        ("EMPTY", ""),
        ("IP", "172.18.0.5"),
        ("KEY", "a"),
        ("KUBERNETES_SERVICE_HOST", "172.18.0.2"),
        ("KUBERNETES_SERVICE_PORT", "6443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "6443"),
        ("NAME", "goldmane-0"),
        ("PLAIN", "x"),
        ("P_A", "a"),
        ("P_file", "text"),
        ("REFERS", "x-a-$(NOBODY)-$(PLAIN)"),
        ("SECRET", "crt"),
    ];
    let got: Vec<(&str, &str)> = made.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(got, expected);
    assert_eq!(made.args, ["--ip=172.18.0.5"]);
}

#[test]
fn volumes_are_files_with_modes_and_groups() {
    let made = plan(
        json!({
            "securityContext": {"fsGroup": 10001},
            "volumes": [
                {"name": "keys", "secret": {"secretName": "pair", "defaultMode": 0o400}},
                {"name": "one", "configMap": {"name": "settings", "items": [{"key": "file", "path": "sub/f", "mode": 0o600}]}},
                {"name": "space", "emptyDir": {}},
                {"name": "node", "hostPath": {"path": "/var/lib/calico"}},
            ],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [
                {"name": "keys", "mountPath": "/keys", "readOnly": true}, {"name": "one", "mountPath": "/f", "subPath": "sub/f"},
            ]}],
        }),
        false,
    )
    .unwrap();
    let modes = |name: &str| -> Vec<(String, u32, u64)> {
        made.volumes[name].iter().map(|f| (f.path.clone(), f.mode, f.group)).collect()
    };
    assert_eq!(modes("keys"), [("tls.crt".into(), 0o440, 10001), ("tls.key".into(), 0o440, 10001)]);
    assert_eq!(modes("one"), [("sub/f".into(), 0o640, 10001)]);
    assert!(made.volumes["space"].is_empty() && made.volumes["node"].is_empty());
    let mounts: Vec<&str> = made.containers[0].mounts.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(mounts, ["/keys", "/var/run/secrets/kubernetes.io/serviceaccount"]);
    assert_eq!(made.containers[0].groups, ["10001"]);
    let said: Vec<&String> = made.not_carried_out.iter().collect();
    assert_eq!(
        said,
        [
            "container c, /f: its part of a volume (the engine must be Docker 26 or newer)",
            "volume node: an empty folder in place of the node's /var/lib/calico",
        ]
    );
}

#[test]
fn what_is_missing_stops_the_pod_as_it_stops_a_kubelet() {
    let rows = [
        (
            json!({"volumes": [{"name": "v", "secret": {"secretName": "none"}}], "containers": []}),
            "no Secret none",
        ),
        (
            json!({"volumes": [{"name": "v", "configMap": {"name": "none"}}], "containers": []}),
            "no ConfigMap none",
        ),
        (
            json!({"containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
            "which is no volume",
        ),
        (
            json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "none"}}}]}]}),
            "key none",
        ),
        (
            json!({"containers": [{"name": "c", "securityContext": {"runAsNonRoot": true, "runAsUser": 0}}]}),
            "runs as user 0",
        ),
    ];
    for (spec, expected) in rows {
        let error = plan(spec, true).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn nothing_is_left_out_silently() {
    let made = plan(
        json!({
            "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "hostNetwork": true, "hostPID": true,
            "schedulerName": "default-scheduler", "priorityClassName": "p", "restartPolicy": "Always",
            "containers": [{
                "name": "c", "image": "i", "resources": {"limits": {"memory": "1Gi"}}, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
                "securityContext": {"privileged": true, "allowPrivilegeEscalation": false, "seccompProfile": {"type": "Localhost"}},
                "startupProbe": {"exec": {"command": ["x"]}}, "readinessProbe": {"grpc": {"port": 1}}, "terminationMessagePath": "/x",
            }],
        }),
        true,
    )
    .unwrap();
    let said: Vec<&str> = made.not_carried_out.iter().map(String::as_str).collect();
    assert_eq!(
        said,
        [
            "container c, lifecycle: {\"preStop\":{\"exec\":{\"command\":[\"x\"]}}}",
            "container c, privileged",
            "container c, resources: {\"limits\":{\"memory\":\"1Gi\"}}",
            "container c, seccompProfile Localhost",
            "container c, startupProbe: {\"exec\":{\"command\":[\"x\"]}}",
            "container c: a probe that is neither exec nor tcpSocket nor httpGet",
            "hostNetwork: it has an address of its own",
            "hostPID: true",
            "scheduling",
        ]
    );
    assert_eq!(made.containers[0].security, ["no-new-privileges"]);
}

#[test]
fn probes_have_their_rhythm() {
    let made = one(json!({
        "name": "goldmane", "image": "i", "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"exec": {"command": ["/health", "-ready"]}, "failureThreshold": 3, "periodSeconds": 30, "timeoutSeconds": 5},
        "livenessProbe": {"httpGet": {"port": "web", "path": "/live"}},
    }));
    let exec = Check::Exec(vec!["/health".into(), "-ready".into()]);
    assert_eq!(made.readiness, Some(Probing { check: exec, period: 30, timeout: 5, failures: 3 }));
    let http = Check::Http { port: 8080, path: "/live".into(), tls: false };
    assert_eq!(made.liveness, Some(Probing { check: http, period: 10, timeout: 1, failures: 3 }));
    let made = one(json!({
        "name": "whisker", "image": "i", "readinessProbe": {"httpGet": {"port": 8443, "path": "/", "scheme": "HTTPS"}},
    }));
    let https = Check::Http { port: 8443, path: "/".into(), tls: true };
    assert_eq!(made.readiness.unwrap().check, https);
}

/// What operators v1.38.0, v1.38.1 and v1.42.3 rendered for Goldmane and Whisker, recorded.
#[test]
fn of_real_specifications_only_scheduling_is_left_out() {
    for version in ["v3.30.0", "v3.30.1", "v3.32.1"] {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../fixtures/data/rendered/{version}.json"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let recorded: Value = serde_json::from_str(&text).unwrap();
        let items = recorded["items"].as_array().unwrap();
        let mut seen = 0;
        for deployment in items.iter().filter(|item| item["kind"] == "Deployment") {
            let spec: PodSpec =
                serde_json::from_value(deployment["spec"]["template"]["spec"].clone()).unwrap();
            let (identity, sources) = (identity(), Sources::default());
            let mut planner = Planner {
                spec: &spec,
                identity: &identity,
                sources: &sources,
                account: None,
                mounts_parts: false,
                not_carried_out: BTreeSet::new(),
            };
            planner.note_what_is_left_out();
            for container in &spec.containers {
                let planned = planner.container(container, ADDRESS, API).unwrap();
                assert_eq!(planned.user.as_deref(), Some("10001:10001"), "{version} {}", planned.name);
                seen += 1;
            }
            assert_eq!(planner.not_carried_out.into_iter().collect::<Vec<_>>(), ["scheduling"], "{version}");
        }
        assert_eq!(seen, 3, "{version}");
    }
}
