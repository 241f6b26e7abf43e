"""Prints a line of JSON for each mail: AMQP_URL=amqp://reader:PASSWORD@HOST:5672 python3 consumer.py reader.NAME"""
import base64, hashlib, json, os, sys
import pika


def plain(headers, name, text):
    """One text of the header called name. What was not valid UTF-8 comes in base64."""
    if name in headers.get("base64", []):
        return base64.b64decode(text).decode(errors="replace")
    return text


queue, seen = sys.argv[1], set()
channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
channel.basic_qos(prefetch_count=16)
channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", "x-max-length-bytes": 1 << 30})
channel.queue_bind(queue, "spam", "spam.mails")
print("waiting for mail in", queue, file=sys.stderr, flush=True)
for method, properties, body in channel.consume(queue):
    headers = properties.headers or {}
    if headers.get("contract") != 1:
        sys.exit("a message of a contract that is not known here; it stays in the queue")
    if properties.message_id not in seen:
        mail = {"message_id": properties.message_id, "intact": hashlib.sha256(body).hexdigest() == headers["sha256"]}
        mail["mail_from"] = plain(headers, "mail_from", headers.get("mail_from", ""))
        mail["rcpt_to"] = [plain(headers, "rcpt_to", text) for text in headers.get("rcpt_to", [])]
        print(json.dumps(mail), flush=True)
        seen.add(properties.message_id)
    channel.basic_ack(method.delivery_tag)  # only now: until here the broker holds the mail for us
