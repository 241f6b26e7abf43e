#!/usr/bin/env bash
# The demo: the whole chain from compose.yaml, as a Compose project of its own beside any other; `demo.sh down` removes it
# with all its data. It ends with exit code 0 only if every mail that was accepted has arrived.
set -euo pipefail
cd "$(dirname "$0")/../.."

export COMPOSE_PROJECT_NAME=spamtraps-demo
export SPAMTRAPS_VERSION=${SPAMTRAPS_VERSION:-dev}
# Ports of the host that nobody else has, for the pages to look at.
export SMTP_PUBLISH=127.0.0.1:0 RABBITMQ_AMQP_PUBLISH=127.0.0.1:0 RABBITMQ_UI_PUBLISH=127.0.0.1:0
export LMTP_COLLECTOR_ADMIN_PUBLISH=127.0.0.1:0 HPFEEDS_BRIDGE_ADMIN_PUBLISH=127.0.0.1:0
export HPFEEDS_BROKER_PUBLISH=127.0.0.1:0 HPFEEDS_BROKER_ADMIN_PUBLISH=127.0.0.1:0
export IMAP_COLLECTOR_ADMIN_PUBLISH=127.0.0.1:0
# One trap mailbox, with a password that nobody else has.
export MAILBOXES_FILE=./build/demo/mailboxes.yml
mailbox=trap@mailbox.example
DEMO_MAILBOX_PASSWORD=$(head -c 18 /dev/urandom | base64 | tr '+/' '-_')
export DEMO_MAILBOX_PASSWORD
# Postfix tries again after seconds instead of a minute: people are watching.
export POSTFIX_QUEUE_RUN_DELAY=2s POSTFIX_MINIMAL_BACKOFF_TIME=2s POSTFIX_MAXIMAL_BACKOFF_TIME=4s
mails=${DEMO_MAILS:-1000}

compose() { tools/compose.sh -f compose.yaml -f e2e/demo/compose.yaml "$@"; }
# Compose's own chatter is not the demo's.
driver() { compose --profile demo run --rm -T demo "$@" 2> >(grep -vE '^ ?(Creating|Container|Network|Volume) ' >&2); }
container() {
	docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter "label=com.docker.compose.service=$1"
}
port() { docker port "$(container "$1")" "$2" | head -1; }
# waiting prints how many mails lie in the collector's maildir, as its /readyz tells.
waiting() {
	local address page
	address=$(port lmtp-collector 9602)
	exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
	printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
	page=$(cat <&3)
	exec 3>&-
	sed -n 's/.*spool: \([0-9,]*\) waiting.*/\1/p' <<<"$page" | tr -d ,
}
say() { printf '\n== %s\n' "$*"; }

if [ "${1:-}" = down ]; then
	compose --profile demo --profile imap --profile hpfeeds down --volumes --remove-orphans --timeout 5
	rm -rf build/demo
	exit
fi

say "images"
tools/images.sh
say "starting RabbitMQ, lmtp-collector, Postfix, hpfeeds-bridge and a small hpfeeds broker"
# Compose waits for RabbitMQ and the collector to be healthy; the driver tries until Postfix answers. The broker comes first, because it makes
# the secrets of the bridge and of the subscriber.
compose --profile hpfeeds up -d --no-build hpfeeds-broker >/dev/null 2>&1 || compose --profile hpfeeds up -d --no-build hpfeeds-broker
compose --profile hpfeeds up -d --no-build >/dev/null 2>&1 || compose --profile hpfeeds up -d --no-build

say "a few mails, by SMTP to Postfix"
driver show

say "a burst of $mails mails; in mid-burst lmtp-collector is killed, then RabbitMQ stopped"
burst=burst-$$
progress=$(mktemp)
trap 'rm -f "$progress"' EXIT
driver send -id "$burst" -n "$mails" >"$progress" &
sender=$!
# accepted N waits until the sender has said that N mails were accepted.
accepted() {
	until grep -qx "accepted $1" "$progress"; do
		kill -0 $sender 2>/dev/null || { wait $sender; return; }
		sleep 0.05
	done
	echo "$1 accepted"
}
accepted $((mails * 3 / 10 / 100 * 100))
docker kill -s KILL "$(container lmtp-collector)" >/dev/null
echo "SIGKILL to lmtp-collector"
accepted $((mails * 5 / 10 / 100 * 100))
docker start "$(container lmtp-collector)" >/dev/null
echo "lmtp-collector starts again"
accepted $((mails * 6 / 10 / 100 * 100))
docker stop -t 20 "$(container rabbitmq)" >/dev/null
echo "RabbitMQ is stopped"
wait $sender
tail -1 "$progress"
# Postfix hands on what it has, and the collector takes it: into its maildir.
for _ in $(seq 300); do
	spooled=$(waiting)
	[ "${spooled:-0}" -lt $((mails / 50)) ] || break
	sleep 0.1
done
if [ "${spooled:-0}" -lt $((mails / 50)) ]; then
	echo "only ${spooled:-0} mails were taken into the maildir" >&2
	exit 1
fi
echo "lmtp-collector has taken $spooled mails into its maildir so far"
docker start "$(container rabbitmq)" >/dev/null
echo "RabbitMQ starts again"

say "what arrived"
driver count -id "$burst" -n "$mails"

say "hpfeeds: what hpfeeds-bridge tail, a subscriber, has seen so far (the last of it)"
docker logs --tail 4 "$(container tail)" 2>/dev/null

say "a burst of $mails mails; in mid-burst hpfeeds-bridge is killed, then the hpfeeds broker"
feed=feed-$$
# seen prints the numbers of the burst's mails that the subscriber has printed, as often as it has.
seen() { docker logs "$(container tail)" 2>/dev/null | grep -oE "Burst $1, mail [0-9]+\$" || true; }
driver send -id "$feed" -n "$mails" >"$progress" &
sender=$!
accepted $((mails * 3 / 10 / 100 * 100))
docker kill -s KILL "$(container hpfeeds-bridge)" >/dev/null
echo "SIGKILL to hpfeeds-bridge"
accepted $((mails * 5 / 10 / 100 * 100))
docker start "$(container hpfeeds-bridge)" >/dev/null
echo "hpfeeds-bridge starts again"
# While it has a backlog to carry, or else nothing would be on its way.
docker kill -s KILL "$(container hpfeeds-broker)" >/dev/null
echo "SIGKILL to the hpfeeds broker"
accepted $((mails * 8 / 10 / 100 * 100))
docker start "$(container hpfeeds-broker)" >/dev/null
echo "the hpfeeds broker starts again"
wait $sender
tail -1 "$progress"
arrived=0
for _ in $(seq 600); do
	arrived=$(seen "$feed" | sort -u | wc -l)
	[ "$arrived" -lt "$mails" ] || break
	sleep 0.2
done

say "what the subscriber has seen"
echo "$mails accepted, $arrived seen by hpfeeds-bridge tail, $(($(seen "$feed" | wc -l) - arrived)) duplicates"
[ "$arrived" = "$mails" ] || { echo "$((mails - arrived)) mails are missing" >&2; exit 1; }

say "a mailbox, on a Dovecot of the demo's own; imap-collector logs in over TLS"
mkdir -p build/demo
: >build/demo/dovecot.pem
cat >"$MAILBOXES_FILE" <<-YAML
	- username: $mailbox
	  password: $DEMO_MAILBOX_PASSWORD
	  host: dovecot
	  ca_file: /config/dovecot.pem
	  poll_interval: 10s
	YAML
# No others can look into the folder; the collector's user can read the files.
chmod 0711 build/demo && chmod 0644 "$MAILBOXES_FILE" build/demo/dovecot.pem
compose --profile imap up -d --no-build --no-deps --force-recreate dovecot >/dev/null 2>&1
in_dovecot() { docker exec -i "$(container dovecot)" "$@"; }
until in_dovecot cat /run/dovecot-conf/tls.pem >build/demo/dovecot.pem 2>/dev/null && in_dovecot doveadm mailbox list -u "$mailbox" >/dev/null 2>&1; do
	docker inspect -f '{{.State.Running}}' "$(container dovecot)" | grep -qx true || { docker logs "$(container dovecot)" >&2; exit 1; }
	sleep 0.2
done
driver bind -id "mailbox-$$"
save() {
	printf 'From: a@spam.example\r\nSubject: %s\r\n\r\n%s\r\n' "$2" "$3" | in_dovecot doveadm save -u "$mailbox" -m "$1"
}
save INBOX "Cheap watches, to a mailbox" "Buy now."
save Junk "Filtered, and all the more wanted" "The provider has put this into Junk."
compose --profile imap run --rm -T --no-deps imap-collector check 2>/dev/null || compose --profile imap run --rm -T --no-deps imap-collector check
compose --profile imap up -d --no-build --no-deps imap-collector >/dev/null 2>&1
echo
echo "in RabbitMQ they are:"
echo
driver collected -id "mailbox-$$" -n 2
# Unseen mails are those that the broker does not have.
for _ in $(seq 50); do
	unseen=$(in_dovecot doveadm search -u "$mailbox" mailbox '*' unseen 2>/dev/null | wc -l || true)
	[ "$unseen" -gt 0 ] || break
	sleep 0.2
done
echo "in the mailbox $unseen of 2 mails are unseen"
[ "$unseen" -eq 0 ]

cat <<TXT

Look around:
  RabbitMQ          http://$(port rabbitmq 15672), user admin, password: docker exec $(container rabbitmq | cut -c1-12) cat /secrets/admin/password
  lmtp-collector    http://$(port lmtp-collector 9602)/ (status page), /readyz, /metrics
  imap-collector    http://$(port imap-collector 9601)/ (status page), /readyz, /metrics
  hpfeeds-bridge    http://$(port hpfeeds-bridge 9603)/ (status page), /readyz, /metrics
  the feed          docker logs -f $(container tail | cut -c1-12)
  SMTP              $(port postfix 25)
Remove it all: make demo-down
TXT
