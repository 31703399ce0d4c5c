"""What `unswayed mitigate` reports: whether training was kept apart from the test, what it changed.

separation   training pairs against the items and users of the audit
changes      two runs of the same items and users, answer by answer
record       what mitigation.json holds
words        findings and headlines in words
page         view data of report.md and report.html; ../templates/mitigation.* only draw
"""
