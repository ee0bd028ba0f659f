#!/bin/bash
# By hand, for one cluster domain, what `cargo xtask e2e` does: a kind cluster, Calico in it, and whether Whisker lists
# flows. Prints the seconds of each part. The images must be in the Docker engine already: pulling is not measured.
set -euo pipefail

CALICO=${CALICO:-v3.30.1}
OPERATOR=${OPERATOR:-v1.38.1}
DOMAIN=${DOMAIN:-corp.internal}
NODE_IMAGE=${NODE_IMAGE:-} # empty: kind's own
MANIFESTS=${MANIFESTS:?is the folder with operator-crds.yaml, tigera-operator.yaml and custom-resources.yaml of $CALICO}
CLUSTER=${CLUSTER:-bench-$$}
TIMEOUT=${TIMEOUT:-300} # seconds that one wait may take

images=("quay.io/tigera/operator:$OPERATOR")
for name in apiserver cni csi goldmane kube-controllers node node-driver-registrar pod2daemon-flexvol typha whisker \
  whisker-backend; do
  images+=("calico/$name:$CALICO")
done

work=$(mktemp -d)
export KUBECONFIG=$work/kubeconfig
forward=
finish() {
  [[ -z $forward ]] || kill "$forward" 2> /dev/null || true
  [[ ! -e $work/created ]] || kind delete cluster --name "$CLUSTER"
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() { echo "error: $1" >&2 && exit 1; }
now() { echo "${EPOCHREALTIME/[.,]/}"; } # microseconds
line() { printf '%-26s %4d.%d s\n' "$1" $(($2 / 1000000)) $(($2 % 1000000 / 100000)); }
begin=$(now) last=$begin
part() { # NAME: prints what has passed since the part before
  local at
  at=$(now)
  line "$1" $((at - last))
  last=$at
}
await() { # WHAT COMMAND...: repeats the command until it succeeds
  local what=$1 deadline=$((SECONDS + TIMEOUT))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "no $what within $TIMEOUT s"
    sleep 0.5
  done
}

# The networking of kind-configs/base.yaml.
cat > "$work/cluster.yaml" << YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  podSubnet: 192.168.0.0/16
  dnsSearch: []
  disableDefaultCNI: true
nodes:
  - role: control-plane
${NODE_IMAGE:+    image: $NODE_IMAGE}
kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    networking:
      dnsDomain: $DOMAIN
YAML
touch "$work/created"
kind create cluster --name "$CLUSTER" --config "$work/cluster.yaml"
# kind drops a patch that it does not understand, without a word.
docker exec "$CLUSTER-control-plane" grep -qx "clusterDomain: $DOMAIN" /var/lib/kubelet/config.yaml ||
  fail "the node's cluster domain is not $DOMAIN"
part "create the cluster"

kind load docker-image --name "$CLUSTER" "${images[@]}"
part "load ${#images[@]} images"

apply() { kubectl apply --server-side -f "$1" > /dev/null; }
apply "$MANIFESTS/operator-crds.yaml"
apply "$MANIFESTS/tigera-operator.yaml"
kubectl wait --for=condition=established --timeout="${TIMEOUT}s" -f "$MANIFESTS/operator-crds.yaml" > /dev/null
part "apply CRDs and operator"

# The Installation of kind-configs/base.yaml: one node needs no BGP, and so its encapsulation is plain VXLAN.
sed -e 's/^  calicoNetwork:/&\n    bgp: Disabled/' -e 's/VXLANCrossSubnet/VXLAN/' "$MANIFESTS/custom-resources.yaml" \
  > "$work/custom-resources.yaml"
[[ $(grep -cE 'bgp: Disabled|encapsulation: VXLAN$' "$work/custom-resources.yaml") == 2 ]] ||
  fail "custom-resources.yaml has another form than that of v3.30"
apply "$work/custom-resources.yaml"
part "apply custom resources"

goldmane_has_an_endpoint() {
  kubectl get endpointslices -n calico-system -l kubernetes.io/service-name=goldmane \
    -o jsonpath='{.items[*].endpoints[*].conditions.ready}' | grep -q true
}
await "endpoint of Goldmane" goldmane_has_an_endpoint
kubectl wait -n calico-system --for=condition=Available --timeout="${TIMEOUT}s" deployment/whisker > /dev/null
part "wait for Goldmane"

kubectl port-forward -n calico-system service/whisker :8081 > "$work/forward" &
forward=$!
address() { grep -om1 '127\.0\.0\.1:[0-9]*' "$work/forward"; }
await "port-forward to Whisker" address > /dev/null
# 200 alone proves nothing: Whisker answers a failed call with it too. A listing has items, if only null.
lists() { curl -sS --max-time 30 "http://$(address)/whisker-backend/flows" | jq -e 'has("items")' > /dev/null; }
await "listing of Whisker" lists
part "ask Whisker"

kill "$forward"
forward=
kind delete cluster --name "$CLUSTER"
rm "$work/created"
part "delete the cluster"
line "total ($DOMAIN)" $(($(now) - begin))
