"""What a scanner of TLS has found that matters, a line for each; nothing if all is well.

    findings.py testssl|sslyze FILE

FILE is its report in JSON. Of testssl.sh that is what it calls worse than LOW; of sslyze each test
that failed, and each answer that is not the safe one.
"""

import json
import sys

# Not counted as findings.
EXCUSED = {
    # Mozilla has the client choose, as it knows which cipher it is fast with; all are good ones.
    "cipher_order",
}
SAFE = {
    "supports_compression": False,
    "supports_early_data": False,
    "is_vulnerable_to_ccs_injection": False,
    "is_vulnerable_to_heartbleed": False,
    "is_vulnerable_to_client_renegotiation_dos": False,
    "supports_fallback_scsv": True,
    "supports_secure_renegotiation": True,
    "supports_ems_extension": True,
    "robot_result": "NOT_VULNERABLE_RSA_NOT_SUPPORTED",
}


def of_testssl(report):
    """Findings worse than LOW, and tests that could not be made."""
    for finding in report:
        if finding["severity"] in {"OK", "INFO", "LOW", "WARN"}:
            continue
        words = f"{finding['severity']} {finding['id']}: {finding['finding']}"
        if finding["id"] in EXCUSED:
            print("not counted:", words, file=sys.stderr)
        else:
            yield words


def of_sslyze(report):
    """Tests that failed, and answers that are not the safe ones."""
    for server in report["server_scan_results"]:
        tests = server["scan_result"] or {}
        if not tests:
            yield f"nothing tested: {server['connectivity_error_trace']}"
        for name, test in tests.items():
            if test["status"] == "ERROR":
                yield f"{name} failed: {test['error_reason']}"
            result = test["result"] or {}
            for answer, safe in SAFE.items():
                if result.get(answer, safe) != safe:
                    yield f"{name}: {answer} is {result[answer]}"
            for deployment in result.get("certificate_deployments", []):
                if not any(
                    path["validation_error"] is None
                    for path in deployment["path_validation_results"]
                ):
                    yield f"{name}: no store trusts the certificate"


def main():
    """Prints the findings."""
    scanner, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    for finding in {"testssl": of_testssl, "sslyze": of_sslyze}[scanner](report):
        print(finding)


main()
