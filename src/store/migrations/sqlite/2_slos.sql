-- JSON of InstanceSpec may have SLOs from here on, which an agent from before cannot read: it must refuse this file
UPDATE counter SET revision = revision;
